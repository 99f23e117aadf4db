"""GIF, WebP, BMP, TIFF and AVIF, by Pillow's plugins, behind checks that Pillow leaves out.

The plugin is called by name, so no other format's parser ever sees the bytes, and Pillow's own
decompression-bomb check is not met: `headers.probe` has compared the size with the limit by then.
"""

from __future__ import annotations

import ctypes
import io
import logging
import struct
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

from PIL import (
    AvifImagePlugin,
    BmpImagePlugin,
    GifImagePlugin,
    Image,
    ImageFile,
    TiffImagePlugin,
    WebPImagePlugin,
    _imaging,
)

from service.errors import UndecodableImage
from service.images import tiff
from service.images.orientation import exif_orientation
from service.images.picture import Picture

# The limit is `DecodeLimits.max_pixels`; Pillow's own only warns, and only above 89 million.
Image.MAX_IMAGE_PIXELS = None
# Decoding runs in a pool already: one more pool inside it would take the cores from the engine.
AvifImagePlugin.DEFAULT_MAX_THREADS = 1


def _silence() -> None:
    """Keeps what a hostile TIFF makes Pillow and libtiff say out of the log; refusals say it themselves.

    There are three ways: warnings (whose texts would also fill Python's once-only registry), a logger, and
    libtiff's own handlers, which write to stderr. libtiff is found through Pillow's module, which links it.
    """
    warnings.filterwarnings("ignore", category=UserWarning, module=r"PIL\.TiffImagePlugin")
    logging.getLogger("PIL.TiffImagePlugin").setLevel(logging.CRITICAL)
    library = ctypes.CDLL(_imaging.__file__)
    for name in ("TIFFSetErrorHandler", "TIFFSetWarningHandler"):
        set_handler = getattr(library, name, None)  # a Pillow built without libtiff has nothing to silence
        if set_handler is not None:
            set_handler.argtypes, set_handler.restype = [ctypes.c_void_p], ctypes.c_void_p
            set_handler(None)


_silence()

_Plugin = Callable[[io.BytesIO], ImageFile.ImageFile]
_PLUGINS: Final[dict[str, _Plugin]] = {
    "gif": GifImagePlugin.GifImageFile,
    "webp": WebPImagePlugin.WebPImageFile,
    "bmp": BmpImagePlugin.BmpImageFile,
    "tiff": TiffImagePlugin.TiffImageFile,
    "avif": AvifImagePlugin.AvifImageFile,
}

_BMP_RUN_LENGTH: Final = (1, 2)
_GIF_CONTROL: Final = 0xF9
# Comments and profiles before the first frame; they are walked in small steps, before any limit applies.
_MAX_GIF_PREAMBLE_BYTES: Final = 256 * 1024
# Sub-blocks of the first frame: 255 bytes each is the habit, 1 byte possible.
_MAX_GIF_BLOCKS: Final = 262_144


class _GifFrame(NamedTuple):
    """Where the first frame begins; the comments before it cost time only."""

    screen_end: int  # end of the screen's header and palette
    control: bytes  # the frame's graphic control extension (transparency), or nothing
    start: int  # image descriptor


def read(name: str, data: bytes) -> Picture:
    """The pixels of the first frame.

    Raises:
        UndecodableImage: Truncated or corrupt data, or a kind that is not read.
    """
    if name == "gif":
        data = _only_first_gif_frame(data)
    if name == "bmp":
        _check_bmp_rows(data)
    with _blaming_the_bytes(name):
        image = _PLUGINS[name](io.BytesIO(data))
        image.load()
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return Picture(tiff.in_8_bits(image))  # the plugin has turned it upright
    return Picture(image, exif_orientation(image.info.get("exif", b"")))


class _BmpHeader(NamedTuple):
    """Source: BITMAPCOREHEADER and BITMAPINFOHEADER of the Windows API."""

    width: int
    height: int
    planes: int
    bits: int
    compression: int


def webp_size(data: bytes) -> tuple[int, int]:
    """Width and height of the canvas. Source: RFC 9649, sections 2.5 to 2.7."""
    if len(data) < 30 or len(data) - 8 < int.from_bytes(data[4:8], "little"):
        raise UndecodableImage("WEBP: truncated")
    kind = data[12:16]
    if kind == b"VP8 ":
        width, height = struct.unpack_from("<HH", data, 26)
        return width & 0x3FFF, height & 0x3FFF
    if kind == b"VP8L":
        bits = int.from_bytes(data[21:25], "little")
        return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1
    if kind == b"VP8X":
        return int.from_bytes(data[24:27], "little") + 1, int.from_bytes(data[27:30], "little") + 1
    raise UndecodableImage(f"WEBP: unknown first chunk {repr(kind)[1:]}")


def bmp_size(data: bytes) -> tuple[int, int]:
    """Width and height; a negative height means top-down rows."""
    header = _bmp_header(data)
    return header.width, abs(header.height)


def gif_size(data: bytes) -> tuple[int, int]:
    """Width and height of the screen, enlarged where the first frame exceeds it."""
    frame = _first_gif_frame(data)
    width, height = struct.unpack_from("<HH", data, 6)
    if len(data) < frame.start + 10:
        raise UndecodableImage("GIF: truncated")
    left, top, frame_width, frame_height = struct.unpack_from("<HHHH", data, frame.start + 1)
    return max(width, left + frame_width), max(height, top + frame_height)


def avif_size(data: bytes) -> tuple[int, int]:
    """Width and height of the first image."""
    with _blaming_the_bytes("avif"):
        return _PLUGINS["avif"](io.BytesIO(data)).size


@contextmanager
def _blaming_the_bytes(name: str) -> Iterator[None]:
    """Whatever a plugin stumbles over, the bytes are to blame: plugins raise what parsing raised."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as exc:
        raise UndecodableImage(f"{name.upper()}: truncated, corrupt or of an unknown kind: {exc}") from exc


def _bmp_header(data: bytes) -> _BmpHeader:
    if len(data) < 34:
        raise UndecodableImage("BMP: truncated")
    if int.from_bytes(data[14:18], "little") == 12:
        width, height, planes, bits = struct.unpack_from("<HHHH", data, 18)
        return _BmpHeader(width, height, planes, bits, 0)
    return _BmpHeader(*struct.unpack_from("<iiHHI", data, 18))


def _check_bmp_rows(data: bytes) -> None:
    header = _bmp_header(data)
    if header.compression in _BMP_RUN_LENGTH:  # Pillow decodes it in Python: a minute for a large one
        raise UndecodableImage("BMP: run-length encoding is not read; save it without compression")
    row_bytes = (header.width * header.bits + 31) // 32 * 4
    if int.from_bytes(data[10:14], "little") + row_bytes * abs(header.height) > len(data):
        raise UndecodableImage("BMP: truncated")


def _first_gif_frame(data: bytes) -> _GifFrame:
    """Source: GIF89a specification (CompuServe, 1990), sections 18 to 23."""
    try:
        position = screen_end = 13 + _gif_palette_bytes(data[10])
        control = b""
        while data[position] == ord("!"):  # extensions
            end = _gif_blocks_end(data, position + 2)
            if data[position + 1] == _GIF_CONTROL:
                control = data[position:end]
            position = end
            if position > _MAX_GIF_PREAMBLE_BYTES:
                raise UndecodableImage(
                    f"GIF: more than {_MAX_GIF_PREAMBLE_BYTES} bytes before the first frame"
                )
        if data[position] != ord(","):
            raise UndecodableImage("GIF: no frame")
    except IndexError as exc:
        raise UndecodableImage("GIF: truncated") from exc
    return _GifFrame(screen_end, control, position)


def _only_first_gif_frame(data: bytes) -> bytes:
    """The file with its first frame alone, which must be complete and followed by something."""
    frame = _first_gif_frame(data)
    try:
        end = _gif_blocks_end(data, frame.start + 11 + _gif_palette_bytes(data[frame.start + 9]))
        if data[end] not in b";,!":
            raise UndecodableImage("GIF: garbage after the first frame")
    except IndexError as exc:
        raise UndecodableImage("GIF: truncated") from exc
    return data[: frame.screen_end] + frame.control + data[frame.start : end] + b";"


def _gif_palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _gif_blocks_end(data: bytes, position: int) -> int:
    """The position after a chain of sub-blocks and its terminator."""
    for _ in range(_MAX_GIF_BLOCKS):
        length = data[position]
        position += 1 + length
        if not length:
            return position
    raise UndecodableImage(f"GIF: more than {_MAX_GIF_BLOCKS} sub-blocks in a row")
