"""BMP: its header, its rows, and its palettes.

Pictures with a palette are read here: Pillow takes black for colours that the palette does not have, and
whole bytes for single bits where the palette is black and white. All else is Pillow's, once every row is
known to be there.

Source: BITMAPCOREHEADER and BITMAPINFOHEADER of the Windows API.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from service.errors import UndecodableImage

_RUN_LENGTH: Final = (1, 2)
_UNCOMPRESSED: Final = 0
_CORE_BYTES: Final = 12
_PALETTE_DEPTHS: Final = (1, 2, 4, 8)


class _Header(NamedTuple):
    """What both forms of the header say.

    Attributes:
        colours: Of the palette; 0: as many as the bits can name.
        end: Where the palette begins.
        pixels: Where the rows begin.
    """

    width: int
    height: int
    planes: int
    bits: int
    compression: int
    colours: int
    end: int
    pixels: int


def size(data: bytes) -> tuple[int, int]:
    """Width and height; a negative height means top-down rows."""
    header = _header(data)
    return header.width, abs(header.height)


def check(data: bytes) -> None:
    """Refuse what is compressed, and rows that are not there.

    Raises:
        UndecodableImage: Truncated, or of a kind that is not read.
    """
    header = _header(data)
    if header.compression in _RUN_LENGTH:  # Pillow decodes it in Python: a minute for a large one
        raise UndecodableImage("BMP: run-length encoding is not read; save it without compression")
    if header.pixels < header.end:
        raise UndecodableImage("BMP: its rows lie in its header")
    if header.pixels + _row_bytes(header) * abs(header.height) > len(data):
        raise UndecodableImage("BMP: truncated")


def has_palette(data: bytes) -> bool:
    """Whether its pixels are numbers of colours."""
    header = _header(data)
    return header.bits in _PALETTE_DEPTHS and header.compression == _UNCOMPRESSED


def read_palette(data: bytes) -> NDArray[np.uint8]:
    """The pixels of a picture with a palette that `check` has passed, uint8 [h, w, 3].

    Raises:
        UndecodableImage: The palette is not there as a whole, or a pixel's colour is not in it.
    """
    header = _header(data)
    entry_bytes = 3 if header.end == 14 + _CORE_BYTES else 4
    colours = header.colours or 1 << header.bits
    if header.end + colours * entry_bytes > header.pixels:
        raise UndecodableImage(f"BMP: its palette of {colours} colours overlaps its rows")
    count = abs(header.height) * _row_bytes(header)
    rows = np.frombuffer(data, np.uint8, count, header.pixels).reshape(abs(header.height), -1)
    if header.height > 0:
        rows = rows[::-1]
    numbers = _unpacked(rows, header.bits)[:, : header.width]
    highest = numbers.max()
    if highest >= colours:
        raise UndecodableImage(f"BMP: colour {highest} of a palette of {colours}")
    palette = np.frombuffer(data, np.uint8, colours * entry_bytes, header.end).reshape(colours, entry_bytes)
    return palette[:, 2::-1][numbers]


def _header(data: bytes) -> _Header:
    try:
        pixels, header_bytes = struct.unpack_from("<II", data, 10)
        end = 14 + header_bytes
        if header_bytes == _CORE_BYTES:
            width, height, planes, bits = struct.unpack_from("<HHHH", data, 18)
            return _Header(width, height, planes, bits, _UNCOMPRESSED, 0, end, pixels)
        width, height, planes, bits, compression = struct.unpack_from("<iiHHI", data, 18)
        (colours,) = struct.unpack_from("<I", data, 46)
        return _Header(width, height, planes, bits, compression, colours, end, pixels)
    except struct.error as exc:
        raise UndecodableImage("BMP: truncated") from exc


def _row_bytes(header: _Header) -> int:
    return (header.width * header.bits + 31) // 32 * 4


def _unpacked(rows: NDArray[np.uint8], bits: int) -> NDArray[np.uint8]:
    """One number a pixel, the highest bits of a byte first; a few more than the row is wide."""
    if bits == 8:
        return rows
    shifts = np.arange(8 - bits, -1, -bits, dtype=np.uint8)
    return (rows[:, :, None] >> shifts & ((1 << bits) - 1)).astype(np.uint8).reshape(len(rows), -1)
