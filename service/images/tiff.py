"""TIFF's first directory, checked before Pillow reads it.

Pillow skips a tag whose value lies outside the file and goes on with the tag's default, with a warning at
most; a picture decoded that way is guessed. So every value and every strip of pixels must lie inside.

It also fills rows that are not there with black, takes signed samples for unsigned ones and subsampled
colours for whole ones, and says nothing of damage in a JPEG or a fax inside. What is not sure to be right is
refused.

Source: TIFF 6.0 (Adobe, 1992), section 2; BigTIFF (AWare Systems, 2007).
"""

from __future__ import annotations

import struct
from typing import Final, Literal, NamedTuple

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from service.errors import UndecodableImage
from service.images import jpeg

MAGICS: Final = (b"II*\x00", b"MM\x00*", b"II+\x00", b"MM\x00+")

_WIDTH, _HEIGHT, _BITS, _COMPRESSION, _PHOTOMETRIC = 256, 257, 258, 259, 262
_STRIPS, _SAMPLES, _STRIP_ROWS, _PLANES, _PALETTE = 273, 277, 278, 284, 320
_TILE_WIDTH, _TILE_HEIGHT, _TILES, _EXTRA_SAMPLES, _SAMPLE_FORMAT = 322, 323, 324, 338, 339
_JPEG_TABLES, _SUBSAMPLING = 347, 530
_WHITE_IS_ZERO, _PALETTE_COLOURS, _YCBCR = 0, 3, 6
# How many samples a pixel of each photometric interpretation has, without extra ones.
_COLOUR_SAMPLES: Final = {_WHITE_IS_ZERO: 1, 1: 1, 2: 3, _PALETTE_COLOURS: 1, 5: 4, _YCBCR: 3, 8: 3}
_UNCOMPRESSED, _JPEG = 1, 7
# Decoders of these go on after damage and do not say so.
_SILENT_COMPRESSIONS: Final = {2: "CCITT RLE", 3: "CCITT group 3", 6: "old-style JPEG", 32771: "CCITT RLEW"}
# Unsigned, and "undefined", which readers are to take for it.
_UNSIGNED_FORMATS: Final = (1, 4)
# Where pixels lie, and how many bytes: strips, tiles.
_EXTENTS: Final = ((_STRIPS, 279), (_TILES, 325))
# Bytes of one value, by field type; 16 to 18 are BigTIFF's.
_TYPE_BYTES: Final = {1: 1, 2: 1, 3: 2, 4: 4, 5: 8, 6: 1, 7: 1, 8: 2, 9: 4, 10: 8, 11: 4, 12: 8, 13: 4}
_BIG_TYPE_BYTES: Final = _TYPE_BYTES | {16: 8, 17: 8, 18: 8}
# Far more than any writer's, few enough to walk quickly.
_MAX_TAGS: Final = 4_096
# A tile is decoded whole, however little of it the picture needs. So much more than the picture itself, and
# as many pixels again, is more than any writer's; as it is no more memory than the picture's own.
_MAX_PADDING: Final = 2048 * 2048
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


def check(data: bytes) -> None:
    """Refuse what would be guessed: of a first page that `size` has passed.

    Raises:
        UndecodableImage: A kind of picture that has no one meaning, or pixels that are missing or damaged.
    """
    layout = _layout(data)
    tags = _Tags(data, layout, _directory(data, layout))
    try:
        _check_kind(tags)
        _check_pixels(tags)
    except (KeyError, IndexError, ValueError, ZeroDivisionError) as exc:
        raise UndecodableImage("TIFF: a directory that makes no sense") from exc


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


class _Tags(NamedTuple):
    """A directory whose values are asked for by tag."""

    data: bytes
    layout: _Layout
    fields: dict[int, _Field]

    def all(self, tag: int, *default: int) -> list[int]:
        """Every value of a tag."""
        if tag not in self.fields:
            return list(default)
        if self.fields[tag].length > _MAX_STRIPS:
            raise ValueError(f"tag {tag} has {self.fields[tag].length} values")
        return [int(value) for value in _values(self.data, self.layout, self.fields[tag])]

    def one(self, tag: int, default: int) -> int:
        """The first value of a tag."""
        return self.all(tag, default)[0]

    def content(self, tag: int) -> bytes:
        """The bytes of a tag; nothing where it is absent."""
        field = self.fields.get(tag)
        return b"" if field is None else self.data[field.start : field.start + field.length]


def _check_kind(tags: _Tags) -> None:
    compression = tags.one(_COMPRESSION, _UNCOMPRESSED)
    if compression in _SILENT_COMPRESSIONS:
        raise UndecodableImage(f"TIFF: {_SILENT_COMPRESSIONS[compression]} compression is not read")
    if not set(tags.all(_SAMPLE_FORMAT)) <= set(_UNSIGNED_FORMATS):
        raise UndecodableImage("TIFF: signed numbers and fractions have no agreed meaning in 8 bits")
    photometric, samples = tags.one(_PHOTOMETRIC, -1), tags.one(_SAMPLES, 1)
    extra = samples - _COLOUR_SAMPLES.get(photometric, samples)
    if extra > 0 and len(tags.all(_EXTRA_SAMPLES)) != extra:
        raise UndecodableImage(
            f"TIFF: {samples} samples a pixel, and it is not said what {extra} of them are"
        )
    bits = tags.one(_BITS, 1)
    if _are_planes(tags) and bits != 8:
        raise UndecodableImage(f"TIFF: separate planes of {bits} bits are not read")
    if photometric == _PALETTE_COLOURS and tags.fields[_PALETTE].length != 3 << bits:
        raise UndecodableImage(f"TIFF: {bits} bits name more colours than its palette has")
    is_whole = tags.all(_SUBSAMPLING, 2, 2) == [1, 1]
    if photometric == _YCBCR and compression == _UNCOMPRESSED and not is_whole:
        raise UndecodableImage("TIFF: uncompressed colours of every second pixel only are not read")


def _are_planes(tags: _Tags) -> bool:
    return tags.one(_PLANES, 1) == 2 and tags.one(_SAMPLES, 1) > 1


class _Grid(NamedTuple):
    """How the picture is cut into strips or tiles.

    Attributes:
        width: Pixels of each; of the last one in a row too.
        height: Rows of each.
        across: How many stand in a row.
        down: How many stand in a column.
    """

    width: int
    height: int
    across: int
    down: int

    @property
    def pieces(self) -> int:
        """Of one plane."""
        return self.across * self.down


def _grid(tags: _Tags) -> _Grid:
    width, height = tags.one(_WIDTH, 0), tags.one(_HEIGHT, 0)
    if _TILES not in tags.fields:
        rows = min(tags.one(_STRIP_ROWS, height), height)
        return _Grid(width, rows, 1, -(-height // rows))
    tile_width, tile_height = tags.one(_TILE_WIDTH, 0), tags.one(_TILE_HEIGHT, 0)
    grid = _Grid(tile_width, tile_height, -(-width // tile_width), -(-height // tile_height))
    if grid.pieces * tile_width * tile_height > 2 * width * height + _MAX_PADDING:
        raise UndecodableImage(f"TIFF: tiles of {tile_width}x{tile_height} pixels for {width}x{height}")
    return grid


def _check_pixels(tags: _Tags) -> None:
    """Every strip or tile is there, and whole as far as that can be seen."""
    grid = _grid(tags)
    starts, lengths = _EXTENTS[_TILES in tags.fields]
    offsets = tags.all(starts)
    wanted = grid.pieces * (tags.one(_SAMPLES, 1) if _are_planes(tags) else 1)
    if len(offsets) < wanted:
        raise UndecodableImage(f"TIFF: {len(offsets)} of {wanted} strips or tiles are there")
    compression = tags.one(_COMPRESSION, _UNCOMPRESSED)
    if compression == _UNCOMPRESSED:
        _check_rows(tags, grid, offsets[:wanted], tags.all(lengths))
    elif compression == _JPEG:
        _check_jpegs(tags, grid, offsets[:wanted], tags.all(lengths))


def _check_rows(tags: _Tags, grid: _Grid, offsets: list[int], counts: list[int]) -> None:
    bits = tags.one(_BITS, 1) * (1 if _are_planes(tags) else tags.one(_SAMPLES, 1))
    row_bytes = -(-grid.width * bits // 8)
    last_rows = grid.height
    if _TILES not in tags.fields:  # the last strip may be shorter; tiles are padded
        last_rows = tags.one(_HEIGHT, 0) - (grid.down - 1) * grid.height
    for position, offset in enumerate(offsets):
        rows = last_rows if position % grid.pieces == grid.pieces - 1 else grid.height
        if counts and counts[position] < rows * row_bytes:
            raise UndecodableImage("TIFF: rows are missing")
        if offset + rows * row_bytes > len(tags.data):
            raise UndecodableImage("TIFF: truncated, pixels lie outside the file")


def _check_jpegs(tags: _Tags, grid: _Grid, offsets: list[int], counts: list[int]) -> None:
    """Each is decoded as strictly as a JPEG by itself: libtiff says nothing of damage in it."""
    tables = tags.content(_JPEG_TABLES)
    for offset, count in zip(offsets, counts, strict=True):
        picture = tags.data[offset : offset + count]
        whole = tables[:-2] + picture[2:] if tables else picture
        try:
            width, height = jpeg.size(whole)
            if width > grid.width or height > grid.height:
                raise UndecodableImage(f"{width}x{height} pixels in a place of {grid.width}x{grid.height}")
            jpeg.read(whole, gray=True)
        except UndecodableImage as error:
            raise UndecodableImage(f"TIFF: a damaged JPEG inside: {error.detail}") from error


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
        if tag in fields:  # readers choose differently, and one of the two would be unchecked
            raise UndecodableImage(f"TIFF: tag {tag} stands twice")
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
