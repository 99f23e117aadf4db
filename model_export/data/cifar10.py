"""CIFAR-10: 32×32 colour pictures of ten things, 50,000 + 10,000, in the forms it is passed around in.

::

    binary      data_batch_1.bin … 5, test_batch.bin    records of 1 label byte + 3,072 pixel bytes
    python      data_batch_1 … 5, test_batch            pickled dictionaries of the same pixels
    folders     train/<class>/*, test/<class>/*         pictures; read by `imagefolder`

Pixels are stored channel by channel (red, green, blue), each row by row.

Source: A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009.
"""

from __future__ import annotations

import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from model_export.data.archive import Archive
from model_export.data.dataset import Split
from model_export.data.download import fetch
from model_export.errors import DataError

LABELS = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
SHAPE = (3, 32, 32)  # C, H, W
MIRROR = "https://www.cs.toronto.edu/~kriz"
ARCHIVE = "cifar-10-binary.tar.gz"

_CHECKSUM = "c4a38c50a1bc5f3a1c5537f2155ab9d68f9f25eb1ed8d9dddda3db29a59bca1dd"  # SHA-256
_PIXELS: Final = 3 * 32 * 32
_TRAIN = tuple(f"data_batch_{number}" for number in range(1, 6))
_TEST = ("test_batch",)

Records = tuple[NDArray[np.uint8], NDArray[np.int64]]  # [N, 3072], [N]


def download(folder: Path, *, mirror: str = MIRROR, console: Console | None = None) -> Path:
    """The binary archive in ``folder``, fetched if it is not there.

    Raises:
        DataError: The network or the file it gave is not as it should be.
    """
    target = folder / ARCHIVE
    fetch(f"{mirror}/{ARCHIVE}", target, _CHECKSUM, console=console)
    return target


def batches_in(archive: Archive) -> bool:
    """Whether the archive is one of the two official forms, and not pictures in folders."""
    return any(name.split("/")[-1].removesuffix(".bin") in _TRAIN for name in archive.names)


def read(archive: Archive) -> tuple[Split, Split]:
    """The training and the test instances of an archive for which `batches_in` holds.

    Raises:
        DataError: A batch is missing or damaged; the message names it.
    """
    return _read_batches(archive, _TRAIN), _read_batches(archive, _TEST)


def _read_batches(archive: Archive, batches: tuple[str, ...]) -> Split:
    found = {}
    for batch in batches:
        names = [name for name in archive.names if name.split("/")[-1] in (batch, f"{batch}.bin")]
        if not names:
            raise DataError(f"{archive.path}: no {batch} or {batch}.bin; the data set is not complete")
        found[names[0]] = batch
    parts = {name: _parsed(archive.locate(name), name, data) for name, data in archive.read(found)}
    pixels, labels = zip(*(parts[name] for name in found), strict=True)
    images = np.concatenate(pixels).reshape(-1, *SHAPE).transpose(0, 2, 3, 1)
    return Split(np.ascontiguousarray(images), np.concatenate(labels))


def _parsed(where: str, name: str, data: bytes) -> Records:
    parse: Callable[[str, bytes], Records] = _parse_binary if name.endswith(".bin") else _parse_pickle
    pixels, labels = parse(where, data)
    if labels.size == 0 or labels.min() < 0 or labels.max() >= len(LABELS):
        raise DataError(f"{where}: labels are not within 0 to {len(LABELS) - 1}")
    return pixels, labels


def _parse_binary(where: str, data: bytes) -> Records:
    if len(data) % (1 + _PIXELS):
        raise DataError(f"{where}: {len(data)} bytes are no whole number of {1 + _PIXELS}-byte records")
    records = np.frombuffer(data, np.uint8).reshape(-1, 1 + _PIXELS)
    return records[:, 1:], records[:, 0].astype(np.int64)


def _parse_pickle(where: str, data: bytes) -> Records:
    try:
        batch = _ArrayUnpickler(io.BytesIO(data), encoding="bytes").load()
        pixels, labels = np.asarray(batch[b"data"], np.uint8), np.asarray(batch[b"labels"], np.int64)
    except (pickle.UnpicklingError, EOFError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{where}: no CIFAR-10 batch ({error})") from error
    if pixels.shape != (len(labels), _PIXELS):
        raise DataError(f"{where}: pixels of shape {pixels.shape} for {len(labels)} labels")
    return pixels, labels


class _ArrayUnpickler(pickle.Unpickler):
    """Plain values and numpy arrays only: a pickle can otherwise run any code it likes."""

    # The second is how a pickle that Python 2 can read spells bytes.
    _ALLOWED: Final = frozenset(
        {("numpy", "_reconstruct"), ("_codecs", "encode"), ("numpy", "ndarray"), ("numpy", "dtype")}
    )

    def find_class(self, module: str, name: str) -> Any:
        if (module.split(".")[0], name) in self._ALLOWED:
            return super().find_class(module, name)
        raise pickle.UnpicklingError(f"{module}.{name} has no place in it")
