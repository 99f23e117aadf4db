"""Pictures in a folder (or tar file) with one subfolder a class, with or without folders of splits.

::

    train/<class>/…   val/<class>/…   test/<class>/…       the splits as they stand
    train/<class>/…   test/<class>/…                       validation is taken from train
    train/<class>/…   val/<class>/…                        val is held back; validation is taken from train
    <class>/…                                              divided by the seed

Folders around that are skipped. Only files with a picture's extension count.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from model_export.data.archive import Archive
from model_export.data.layout import Layout, Listing
from model_export.errors import DataError
from service.artifact import InputContract
from service.errors import RequestError
from service.images import decode, probe

_EXTENSIONS: Final = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif")
_TRAIN: Final = frozenset({"train", "training"})
_VALIDATION: Final = frozenset({"val", "valid", "validation"})
_TEST: Final = frozenset({"test", "testing"})
_CHUNK = 256  # pictures that are encoded in memory at once

_Classes = dict[str, str]  # a picture's name → its class folder


def survey(archive: Archive) -> Layout:
    """Which pictures there are, judged by their names alone.

    Raises:
        DataError: No pictures, a picture outside the class folders, a class folder without any, a single
            class, or a class that is held back but not trained on.
    """
    train, validation, test = _arranged(archive, pictures_in(archive))
    classes = tuple(sorted(set(train.values())))
    if len(classes) < 2:
        raise DataError(f"{archive.path}: a single class, '{classes[0]}'; nothing to tell apart")
    strangers = (set(validation.values()) | set(test.values())) - set(classes)
    if strangers:
        raise DataError(
            f"{archive.path}: class '{min(strangers)}' is held back, but has no training pictures"
        )
    return Layout(
        classes,
        _listing(train, classes),
        _listing(validation, classes) if validation else None,
        _listing(test, classes) if test else None,
    )


def pictures_in(archive: Archive) -> tuple[str, ...]:
    """The names of all pictures, sorted.

    Raises:
        DataError: There are none.
    """
    names = tuple(name for name in archive.names if name.lower().endswith(_EXTENSIONS))
    if not names:
        raise DataError(f"{archive.path}: no pictures (files ending in {', '.join(_EXTENSIONS)})")
    return names


def load(
    archive: Archive, names: Sequence[str], contract: InputContract, *, console: Console | None = None
) -> tuple[NDArray[np.uint8], NDArray[np.float64]]:
    """The named pictures, decoded as the service would, and their sizes.

    Args:
        archive: Where they are.
        names: Which of them.
        contract: How to decode.
        console: Where progress is shown; None: nowhere.

    Returns:
        uint8 [N, H, W, C], and √(width · height) of each as stored.

    Raises:
        DataError: A picture cannot be decoded; the message names it.
    """
    images = np.empty((len(names), contract.height, contract.width, contract.channels), np.uint8)
    sizes = np.empty(len(images))
    place = {name: position for position, name in enumerate(names)}

    def put(entry: tuple[str, bytes]) -> None:
        name, data = entry
        try:
            info = probe(data)
            sizes[place[name]] = info.pixels**0.5
            images[place[name]] = decode(data, contract)
        except RequestError as error:
            raise DataError(f"{archive.locate(name)}: {error}") from error

    with ThreadPoolExecutor() as pool:
        decoded = _in_chunks(pool, put, archive.read(names))
        for _ in track(decoded, "decoding", len(images), console=console or Console(quiet=True)):
            pass
    return images, sizes


def _in_chunks(
    pool: ThreadPoolExecutor,
    put: Callable[[tuple[str, bytes]], None],
    entries: Iterator[tuple[str, bytes]],
) -> Iterator[None]:
    # `Executor.map` alone would read the whole archive before the first picture is decoded.
    while chunk := list(islice(entries, _CHUNK)):
        yield from pool.map(put, chunk)


def _root_of(names: Sequence[str]) -> str:
    """The folders that all share, as far as a class folder and a file name remain below them."""
    shared = [set(parts) for parts in zip(*(name.split("/")[:-2] for name in names), strict=False)]
    depth = next((depth for depth, parts in enumerate(shared) if len(parts) > 1), len(shared))
    return "".join(f"{part}/" for part in names[0].split("/")[:depth])


def _arranged(archive: Archive, names: Sequence[str]) -> tuple[_Classes, _Classes, _Classes]:
    """The class of each picture, for the training, the validation and the test split."""
    root = _root_of(names)
    tops = {name: name[len(root) :].split("/")[0].lower() for name in names}
    if not set(tops.values()) & (_TRAIN | _VALIDATION | _TEST):
        classes = _classes(archive, root, names)
        _refuse_bare_folders(archive, classes, root.count("/") + 1)
        return classes, {}, {}
    stranger = next((name for name in names if tops[name] not in _TRAIN | _VALIDATION | _TEST), None)
    if stranger is not None:
        raise DataError(f"{archive.locate(stranger)}: lies outside the folders train, val and test")
    train, validation, test = (
        _classes(archive, root, [name for name in names if tops[name] in split], below=1)
        for split in (_TRAIN, _VALIDATION, _TEST)
    )
    if not train:
        raise DataError(f"{archive.path}: there are held-back pictures, but no folder 'train'")
    _refuse_bare_folders(archive, train, root.count("/") + 2)
    return (train, validation, test) if test else (train, {}, validation)


def _refuse_bare_folders(archive: Archive, names: Iterable[str], depth: int) -> None:
    """A class folder without pictures is a class that would silently not be learnt.

    Args:
        archive: Where the folders are.
        names: Of the pictures to learn from.
        depth: So many folders lead to a class, its own included.

    Raises:
        DataError: There is a folder beside those of ``names`` that none of them lies in.
    """
    bearing = {"/".join(name.split("/")[:depth]) for name in names}
    places = {folder.rpartition("/")[0] for folder in bearing}
    for folder in archive.folders:
        if folder.rpartition("/")[0] in places and folder not in bearing:
            where = archive.locate(folder)
            raise DataError(f"{where}: a class folder without pictures; add some, or remove it")


def _classes(archive: Archive, root: str, names: Sequence[str], below: int = 0) -> _Classes:
    classes = {}
    for name in names:
        folders = name[len(root) :].split("/")[below:-1]
        if not folders:
            raise DataError(f"{archive.locate(name)}: lies outside any class folder")
        classes[name] = folders[0]
    return classes


def _listing(found: _Classes, classes: Sequence[str]) -> Listing:
    position = {name: index for index, name in enumerate(classes)}
    return Listing(tuple(found), np.array([position[name] for name in found.values()], np.int64))
