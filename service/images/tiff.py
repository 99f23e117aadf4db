"""TIFF's first directory, checked before Pillow reads it.

Pillow skips a tag whose value lies outside the file and goes on with the tag's default, with a warning at
most; a picture decoded that way is guessed. So every value and every strip of pixels must lie inside.

Source: TIFF 6.0 (Adobe, 1992), section 2; BigTIFF (AWare Systems, 2007).
"""

from __future__ import annotations

import struct
from typing import Final, Literal, NamedTuple

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from service.errors import UndecodableImage

MAGICS: Final = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

_WIDTH, _HEIGHT, _BITS, _PHOTOMETRIC = 256, 257, 258, 262
_WHITE_IS_ZERO: Final = 0
# Where pixels lie, and how many bytes: strips, tiles.
_EXTENTS: Final = ((273, 279), (324, 325))
# Bytes of one value, by field type; 16 to 18 are BigTIFF's.
_TYPE_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_BIG_TYPE_BYTES: Final = _TYPE_BYTES | {16: 8, 17: 8, 18: 8}
# Far more than any writer's, few enough to walk quickly.
_MAX_TAGS: Final = 4_096
# Pillow hands each strip to the decoder by itself, in Python: half a second for so many.
_MAX_STRIPS: Final = 32_768
_UNSIGNED: Final = {1: "u1", 3: "u2", 4: "u4", 16: "u8"}


class _Layout(NamedTuple):
    """How a directory is laid out; values longer than ``inline_bytes`` stand elsewhere."""

    order: Literal["<", ">"]
    count_format: str
    entry: struct.Struct
    inline_bytes: int
    type_bytes: dict[int, int]


class _Field(NamedTuple):
    """One tag's values: their type, how many there are, and where they stand in the file."""

    kind: int
    length: int
    start: int


def size(data: bytes) -> tuple[int, int]:
    """Width and height of the first page, once its directory is found sound.

    Raises:
        UndecodableImage: The directory, a value or a strip of pixels lies outside the file.
    """
    layout = _layout(data)
    try:
        fields = _directory(data, layout)
        for starts, lengths in _EXTENTS:
            if starts in fields and fields[starts].length > _MAX_STRIPS:
                raise UndecodableImage(f"TIFF: more than {_MAX_STRIPS} strips or tiles")
            if starts in fields and lengths in fields:
                _check_extents(data, layout, fields[starts], fields[lengths])
        width, height = (int(_values(data, layout, fields[tag])[0]) for tag in (_WIDTH, _HEIGHT))
    except (struct.error, KeyError, IndexError, ValueError, OverflowError) as exc:
        raise UndecodableImage("TIFF: truncated, or a directory that makes no sense") from exc
    return width, height


def in_8_bits(image: TiffImageFile) -> Image.Image:
    """One 12- or 16-bit channel as 8 bits, by its high byte; any other mode as it is.

    Pillow gives 12 bits unscaled, and 16 bits not inverted where the file says that white is zero.
    """
    if not image.mode.startswith("I;16"):
        return image
    bits = image.tag_v2.get(_BITS, (16,))[0]
    samples = (np.asarray(image) >> (bits - 8)).astype(np.uint8)
    is_inverted = image.tag_v2.get(_PHOTOMETRIC) == _WHITE_IS_ZERO
    return Image.fromarray(255 - samples if is_inverted else samples)


def _layout(data: bytes) -> _Layout:
    order: Literal["<", ">"] = "<" if data.startswith(b"II") else ">"
    if data[2:4] in (b"+\x00", b"\x00+"):
        return _Layout(order, "Q", struct.Struct(order + "HHQ8x"), 8, _BIG_TYPE_BYTES)
    return _Layout(order, "H", struct.Struct(order + "HHI4x"), 4, _TYPE_BYTES)


def _directory(data: bytes, layout: _Layout) -> dict[int, _Field]:
    is_big = layout.inline_bytes == 8
    offset_format = layout.order + ("Q" if is_big else "I")
    (position,) = struct.unpack_from(offset_format, data, 8 if is_big else 4)
    (count,) = struct.unpack_from(layout.order + layout.count_format, data, position)
    if count > _MAX_TAGS:
        raise UndecodableImage(f"TIFF: more than {_MAX_TAGS} tags")
    position += struct.calcsize(layout.order + layout.count_format)
    if position + count * layout.entry.size + layout.inline_bytes > len(data):
        raise UndecodableImage("TIFF: truncated, its directory lies outside the file")
    fields = {}
    for start in range(position, position + count * layout.entry.size, layout.entry.size):
        tag, kind, values = layout.entry.unpack_from(data, start)
        length = values * layout.type_bytes.get(kind, 0)
        value = start + layout.entry.size - layout.inline_bytes
        if length > layout.inline_bytes:
            (value,) = struct.unpack_from(offset_format, data, value)
        if value + length > len(data):
            raise UndecodableImage(f"TIFF: truncated, tag {tag} lies outside the file")
        fields[tag] = _Field(kind, values, value)
    return fields


def _check_extents(data: bytes, layout: _Layout, starts: _Field, lengths: _Field) -> None:
    offsets, counts = (_values(data, layout, field) for field in (starts, lengths))
    if offsets.shape != counts.shape or (offsets + counts > len(data)).any():
        raise UndecodableImage("TIFF: truncated, pixels lie outside the file")


def _values(data: bytes, layout: _Layout, field: _Field) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Unsigned values as float64: no sum of two can overflow, and below 2⁵³ none is rounded."""
    kind = np.dtype(_UNSIGNED[field.kind]).newbyteorder(layout.order)
    return np.frombuffer(data, kind, field.length, field.start).astype(np.float64)
