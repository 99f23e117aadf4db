"""MNIST, or any data set in the same four IDX files: 28×28 gray digits, 60,000 + 10,000.

::

    magic  00 00 08 d    unsigned bytes, d dimensions     (3 images, 1 labels)
    sizes  d × uint32, big endian
    data   row by row

Source: Y. LeCun, C. Cortes and C. Burges, The MNIST database of handwritten digits, 1998.
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray
from rich.console import Console

from model_export.data.dataset import Split
from model_export.data.download import fetch
from model_export.errors import DataError

LABELS = tuple("0123456789")
SHAPE = (1, 28, 28)  # C, H, W
MIRROR = "https://ossci-datasets.s3.amazonaws.com/mnist"

_CHECKSUMS: Final = {  # SHA-256 of the files as the mirror has them
    "train-images-idx3-ubyte.gz": "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    "train-labels-idx1-ubyte.gz": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "t10k-images-idx3-ubyte.gz": "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    "t10k-labels-idx1-ubyte.gz": "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
}


def download(folder: Path, *, mirror: str = MIRROR, console: Console | None = None) -> None:
    """The four files in ``folder``; those that are there already stay.

    Raises:
        DataError: The network or the files it gave are not as they should be.
    """
    for name, checksum in _CHECKSUMS.items():
        fetch(f"{mirror}/{name}", folder / name, checksum, console=console)


def read(folder: Path) -> tuple[Split, Split]:
    """The training and the test instances.

    Args:
        folder: Has the four files, gzipped (``.gz``) or not.

    Raises:
        DataError: A file is missing, damaged, or of another shape; the message names it.
    """
    return _read_pair(folder, "train"), _read_pair(folder, "t10k")


def _read_pair(folder: Path, prefix: str) -> Split:
    images_file = _find(folder, f"{prefix}-images-idx3-ubyte")
    labels_file = _find(folder, f"{prefix}-labels-idx1-ubyte")
    images, labels = read_idx(images_file, 3), read_idx(labels_file, 1)
    if images.shape[1:] != SHAPE[1:]:
        raise DataError(f"{images_file}: pictures of {images.shape[1]}x{images.shape[2]}, not 28x28")
    if len(images) != len(labels):
        raise DataError(f"{images_file}: {len(images)} pictures, but {len(labels)} labels in {labels_file}")
    if labels.size and labels.max() >= len(LABELS):
        raise DataError(f"{labels_file}: label {labels.max()}, there are only 0 to {len(LABELS) - 1}")
    return Split(images[..., np.newaxis], labels.astype(np.int64))


def read_idx(file: Path, dimensions: int) -> NDArray[np.uint8]:
    """The array in an IDX file of unsigned bytes.

    Args:
        file: With or without gzip, told apart by its first bytes.
        dimensions: How many the array must have.

    Raises:
        DataError: Not an IDX file of so many dimensions, damaged, or longer or shorter than it says.
    """
    data = _unpacked(file)
    magic = bytes((0, 0, 8, dimensions))
    start = 4 + 4 * dimensions
    if data[:4] != magic or len(data) < start:
        raise DataError(f"{file}: no IDX file of {dimensions} dimension(s): it begins with {data[:4].hex()}")
    shape = struct.unpack(f">{dimensions}I", data[4:start])
    if len(data) - start != math.prod(shape):
        raise DataError(
            f"{file}: announces {shape}, that is {math.prod(shape)} bytes, has {len(data) - start}"
        )
    return np.frombuffer(bytearray(data), np.uint8, offset=start).reshape(shape)


def _unpacked(file: Path) -> bytes:
    data = file.read_bytes()
    if not data.startswith(b"\x1f\x8b"):
        return data
    try:
        return gzip.decompress(data)
    except (OSError, EOFError, zlib.error) as error:
        raise DataError(f"{file}: damaged gzip file ({error})") from error


def _find(folder: Path, name: str) -> Path:
    for candidate in (folder / f"{name}.gz", folder / name):
        if candidate.is_file():
            return candidate
    raise DataError(f"{folder}: no {name}.gz; --data-dir must name the folder with the four MNIST files")
