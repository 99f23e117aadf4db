"""PNG, read chunk by chunk: every checksum is verified, and only what makes pixels is looked at.

::

    IHDR ─ size, depth, colour type        PLTE ─ palette        tRNS ─ transparency
    IDAT … ─ joined and handed to Pillow's inflate-and-unfilter   eXIf ─ orientation      IEND

Pillow's own reader does not check the checksum of IDAT, skips over a missing IEND, inflates texts and
profiles nobody asked for, and costs twice as much for a small picture; its C decoder is the same here.

Depths below 8 are scaled up to 0…255. Of 16 bits the high byte is taken: 0…65535 becomes 0…255.

Source: PNG specification, third edition (W3C, 2025).
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Sequence
from typing import Final, NamedTuple
from zlib import crc32

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.errors import UndecodableImage
from service.images.orientation import exif_orientation
from service.images.picture import Picture

MAGIC: Final = b"\x89PNG\r\n\x1a\n"

_CHUNK_START: Final = struct.Struct(">I4s")
_CHECKSUM: Final = struct.Struct(">I")
_HEADER: Final = struct.Struct(">IIBBBBB")
_WANTED: Final = frozenset({b"IHDR", b"PLTE", b"IDAT", b"IEND", b"tRNS", b"eXIf"})
# Readers that come to the pixels first have no use for what these say.
_PLACES: Final = {b"PLTE": 1, b"tRNS": 2, b"IDAT": 3}

# Far more than any encoder writes (8 KiB a chunk is the smallest habit), few enough to walk quickly.
_MAX_CHUNKS: Final = 65_536

_GRAY, _RGB, _PALETTE = 0, 2, 3
# (bit depth, colour type) → Pillow's mode and how its decoder unpacks the rows into it.
_LAYOUTS: Final = {
    (1, _GRAY): ("1", "1"),
    (2, _GRAY): ("L", "L;2"),
    (4, _GRAY): ("L", "L;4"),
    (8, _GRAY): ("L", "L"),
    (16, _GRAY): ("L", "L;16B"),
    (8, _RGB): ("RGB", "RGB"),
    (16, _RGB): ("RGB", "RGB;16B"),
    (1, _PALETTE): ("P", "P;1"),
    (2, _PALETTE): ("P", "P;2"),
    (4, _PALETTE): ("P", "P;4"),
    (8, _PALETTE): ("P", "P"),
    (8, 4): ("LA", "LA"),
    (16, 4): ("RGBA", "LA;16B"),
    (8, 6): ("RGBA", "RGBA"),
    (16, 6): ("RGBA", "RGBA;16B"),
}
# Reads the low byte where the layout above reads the high one.
_LOW_BYTES: Final = {_GRAY: "L;16", _RGB: "RGB;16L"}
_CHANNELS: Final = {_GRAY: 1, _RGB: 3, _PALETTE: 1, 4: 2, 6: 4}
# First column, first row, column step and row step of each pass.
_ADAM7: Final = (
    (0, 0, 8, 8),
    (4, 0, 8, 8),
    (0, 4, 4, 8),
    (2, 0, 4, 4),
    (0, 2, 2, 4),
    (1, 0, 2, 2),
    (0, 1, 1, 2),
)
# Pillow takes the end of the compressed data for the end of the picture, even where rows are missing. So
# the canvas is painted before: a row that was never written still has the paint, whichever it was. The
# first paint is a value seldom found, so that one attempt is nearly always enough.
_PAINTS: Final = (90, 91)
_ROWS_MISSING: Final = "PNG: corrupt pixels: rows are missing"


class _Header(NamedTuple):
    width: int
    height: int
    depth: int
    colour_type: int
    compression: int
    filtering: int
    interlace: int


def size(data: bytes) -> tuple[int, int]:
    """Width and height as the header says."""
    if len(data) < 33 or data[8:16] != b"\x00\x00\x00\x0dIHDR":
        raise UndecodableImage("PNG: truncated, or it does not begin with IHDR")
    width, height = struct.unpack_from(">II", data, 16)
    return width, height


def read(data: bytes) -> Picture:
    """The pixels of the still picture (of an animation: the default image).

    Raises:
        UndecodableImage: A wrong checksum, a missing or impossible chunk, or corrupt pixels.
    """
    chunks = _chunks(data)
    header = _Header(*_HEADER.unpack(chunks[b"IHDR"][0]))
    if header.compression or header.filtering or header.interlace > 1:
        raise UndecodableImage("PNG: unknown compression, filter or interlace method")
    layout = _LAYOUTS.get((header.depth, header.colour_type))
    if layout is None:
        raise UndecodableImage(f"PNG: colour type {header.colour_type} with {header.depth} bits a channel")
    pieces = chunks[b"IDAT"]
    pixels = pieces[0] if len(pieces) == 1 else b"".join(pieces)
    exif = chunks.get(b"eXIf")
    orientation = exif_orientation(bytes(exif[0])) if exif else 1
    if layout[0] == "L" and not header.interlace and b"tRNS" not in chunks:
        return Picture(_unpacked_gray(pixels, header, layout[1]), orientation)
    image = _unpacked(pixels, header, *layout)
    if header.colour_type == _PALETTE:
        _set_palette(image, chunks)
    elif b"tRNS" in chunks and header.colour_type in (_GRAY, _RGB):
        _set_transparent_colour(image, pixels, header, chunks[b"tRNS"][0])
    return Picture(image, orientation)


def _chunks(data: bytes) -> dict[bytes, list[memoryview]]:
    """The bodies of the chunks that matter, by type; every checksum up to IEND verified."""
    view = memoryview(data)
    found: dict[bytes, list[memoryview]] = {}
    position, previous, place = len(MAGIC), b"", 0
    try:
        for _ in range(_MAX_CHUNKS):
            length, kind = _CHUNK_START.unpack_from(data, position)
            body, end = position + 8, position + 8 + length
            if crc32(view[position + 4 : end]) != _CHECKSUM.unpack_from(data, end)[0]:
                raise UndecodableImage(f"PNG: wrong checksum in chunk {_name(kind)}")
            if kind in _WANTED:
                if kind in found and not kind == previous == b"IDAT":
                    raise UndecodableImage(f"PNG: a second {_name(kind)} chunk")
                if _PLACES.get(kind, place) < place:
                    raise UndecodableImage(f"PNG: chunk {_name(kind)} stands too late")
                place = _PLACES.get(kind, place)
                found.setdefault(kind, []).append(view[body:end])
                if kind == b"IEND":
                    return _complete(found)
            elif not kind[0] & 0x20:
                raise UndecodableImage(f"PNG: unknown critical chunk {_name(kind)}")
            position, previous = end + 4, kind
    except struct.error as exc:
        raise UndecodableImage("PNG: truncated, the end is missing") from exc
    raise UndecodableImage(f"PNG: more than {_MAX_CHUNKS} chunks")


def _complete(found: dict[bytes, list[memoryview]]) -> dict[bytes, list[memoryview]]:
    missing = [kind for kind in (b"IHDR", b"IDAT") if kind not in found]
    if missing:
        raise UndecodableImage(f"PNG: no {_name(missing[0])} chunk")
    return found


def _name(kind: bytes) -> str:
    return repr(kind)[1:]  # quoted and escaped: it may be any four bytes


def _unpacked_gray(pixels: bytes | memoryview, header: _Header, rawmode: str) -> NDArray[np.uint8]:
    """The rows as an array [h, w, 1]: Pillow decodes straight into its memory."""
    shape = header.height, header.width, 1
    for paint in _PAINTS:
        rows = np.full(shape, paint, dtype=np.uint8)
        canvas = Image.frombuffer("L", (header.width, header.height), rows, "raw", "L", 0, 1)
        _inflate(canvas, pixels, rawmode, header.interlace)
        if rows[-1, -1, 0] != paint:
            return rows
    raise UndecodableImage(_ROWS_MISSING)


def _unpacked(pixels: bytes | memoryview, header: _Header, mode: str, rawmode: str) -> Image.Image:
    """The rows as an image."""
    if header.interlace:
        _check_interlaced_length(pixels, header)
    for paint in _PAINTS:
        image = Image.new(mode, (header.width, header.height), paint)
        _inflate(image, pixels, rawmode, header.interlace)
        if header.interlace or _last_sample(image) != paint:
            return image
    raise UndecodableImage(_ROWS_MISSING)


def _inflate(canvas: Image.Image, pixels: bytes | memoryview, rawmode: str, interlace: int) -> None:
    """Inflates, unfilters and unpacks the rows into ``canvas``."""
    try:
        canvas.frombytes(pixels, "zip", rawmode, interlace)
    except MemoryError:
        raise
    except Exception as exc:  # whatever the decoder stumbles over, the bytes are to blame
        raise UndecodableImage(f"PNG: corrupt pixels: {exc}") from exc


def _last_sample(image: Image.Image) -> object:
    pixel = image.getpixel((image.width - 1, image.height - 1))
    return pixel[0] if isinstance(pixel, tuple) else pixel


def _check_interlaced_length(pixels: bytes | memoryview, header: _Header) -> None:
    """Refuses missing rows; the last pixel of an interlaced picture is not the last that is written."""
    bits = header.depth * _CHANNELS[header.colour_type]
    length = 0
    for column, row, across, down in _ADAM7:
        width, height = -((column - header.width) // across), -((row - header.height) // down)
        length += height * (1 + (width * bits + 7) // 8) if width else 0
    try:
        raw = zlib.decompressobj().decompress(pixels, length)
    except zlib.error as exc:
        raise UndecodableImage(f"PNG: corrupt pixels: {exc}") from exc
    if len(raw) < length:
        raise UndecodableImage(_ROWS_MISSING)


def _set_palette(image: Image.Image, chunks: dict[bytes, list[memoryview]]) -> None:
    palette = bytes(chunks[b"PLTE"][0]) if b"PLTE" in chunks else b""
    if not palette or len(palette) % 3 or len(palette) > 3 * 256:
        raise UndecodableImage(f"PNG: a palette of {len(palette)} bytes")
    highest = np.asarray(image).max()
    if highest >= len(palette) // 3:
        raise UndecodableImage(f"PNG: colour {highest} of a palette of {len(palette) // 3}")
    image.putpalette(palette)
    if b"tRNS" in chunks:
        alphas = bytes(chunks[b"tRNS"][0])
        if len(alphas) > len(palette) // 3:
            raise UndecodableImage(f"PNG: {len(alphas)} transparencies of {len(palette) // 3} colours")
        image.info["transparency"] = alphas


def _set_transparent_colour(
    image: Image.Image, pixels: bytes | memoryview, header: _Header, body: memoryview
) -> None:
    """Adds an alpha channel to ``image``: 0 where a pixel has exactly the colour in tRNS."""
    channels = 1 if header.colour_type == _GRAY else 3
    if len(body) != 2 * channels:
        raise UndecodableImage(f"PNG: a transparent colour of {len(body)} bytes")
    key = [int(value) for value in np.frombuffer(body, dtype=">u2")]
    if header.depth == 16:
        low = _unpacked(pixels, header, image.mode, _LOW_BYTES[header.colour_type])
        is_key = _has_colour(image, [value >> 8 for value in key]) & _has_colour(low, [v & 255 for v in key])
    else:
        image_8_bit = image.convert("L") if image.mode == "1" else image
        is_key = _has_colour(image_8_bit, [value * 255 // (2**header.depth - 1) for value in key])
    image.putalpha(Image.fromarray(~(is_key.view(np.uint8) * np.uint8(255))))


def _has_colour(image: Image.Image, colour: Sequence[int]) -> NDArray[np.bool_]:
    """[h, w], where every channel has its value. One channel at a time: the arrays may be large."""
    is_colour = np.ones((image.height, image.width), dtype=np.bool_)
    for channel, value in zip(image.split(), colour, strict=True):
        is_colour &= np.asarray(channel) == value
    return is_colour
