"""EXIF orientation: how a stored picture must be turned to stand upright.

::

    1 ─ as stored          5 ─ transpose (mirror along the main diagonal)
    2 ─ mirror left–right  6 ─ 90° clockwise
    3 ─ 180°               7 ─ transverse (mirror along the other diagonal)
    4 ─ mirror top–bottom  8 ─ 90° counter-clockwise

Source: CIPA DC-008 (EXIF 3.0), tag 0x0112. Only IFD0 is looked at, and a damaged EXIF block counts as
none: it describes the picture, it is not the picture.
"""

from __future__ import annotations

import struct
from typing import Final

from PIL import Image

_ORIENTATION_TAG: Final = 0x0112
_SHORT: Final = 3

_TURNS: Final = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}


def exif_orientation(exif: bytes) -> int:
    """The orientation in an EXIF block, 1 to 8; 1 where it has none or is damaged.

    Args:
        exif: A TIFF structure, with or without the ``Exif\\0\\0`` of a JPEG before it.
    """
    tiff = exif.removeprefix(b"Exif\x00\x00")
    order = {b"II*\x00": "<", b"MM\x00*": ">"}.get(tiff[:4])
    if order is None:
        return 1
    try:
        (offset,) = struct.unpack_from(order + "I", tiff, 4)
        (count,) = struct.unpack_from(order + "H", tiff, offset)
        for entry in range(offset + 2, offset + 2 + 12 * count, 12):
            tag, kind, _, value = struct.unpack_from(order + "HHIH", tiff, entry)
            if tag == _ORIENTATION_TAG:
                return value if kind == _SHORT and 1 <= value <= 8 else 1
    except struct.error:
        pass
    return 1


def is_sideways(orientation: int) -> bool:
    """Whether standing upright swaps width and height."""
    return orientation >= 5


def starts_at_right(orientation: int) -> bool:
    """Whether the stored picture's last row or column becomes the upright one's left edge."""
    return orientation in (2, 3, 6, 7)


def starts_at_bottom(orientation: int) -> bool:
    """Whether the stored picture's last row or column becomes the upright one's top edge."""
    return orientation in (3, 4, 7, 8)


def upright(image: Image.Image, orientation: int) -> Image.Image:
    """The picture turned as its orientation says; the same object where nothing is to be done."""
    turn = _TURNS.get(orientation)
    return image if turn is None else image.transpose(turn)
