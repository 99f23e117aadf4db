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
from typing import Final

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
from service.images import bmp, gif, tiff
from service.images.orientation import exif_orientation
from service.images.picture import Picture

# The limit is `DecodeLimits.max_pixels`; Pillow's own only warns, and only above 89 million.
Image.MAX_IMAGE_PIXELS = None
# Decoding runs on several threads already: a pool inside it would take the cores from the engine.
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


def read(name: str, data: bytes) -> Picture:
    """The pixels of the first frame.

    Raises:
        UndecodableImage: Truncated or corrupt data, or a kind that is not read.
    """
    if name == "gif":
        return _read_gif(data)
    if name == "bmp":
        bmp.check(data)
        if bmp.has_palette(data):
            return Picture(bmp.read_palette(data))
    if name == "tiff":
        tiff.check(data)
    image = _loaded(name, data, SIZES[name](data))
    if isinstance(image, TiffImagePlugin.TiffImageFile):
        return Picture(tiff.in_8_bits(image))  # the plugin has turned it upright
    return Picture(image, exif_orientation(image.info.get("exif", b"")))


def _read_gif(data: bytes) -> Picture:
    frame = gif.first_frame(data)
    return Picture(gif.placed(_loaded("gif", gif.alone(data, frame), frame.size), frame))


def _loaded(name: str, data: bytes, size: tuple[int, int]) -> ImageFile.ImageFile:
    """The plugin's picture, decoded, if it is of the size that was compared with the limit.

    Two readers of one header may not understand it alike; memory is what the plugin makes of it.
    """
    with _blaming_the_bytes(name):
        image = _PLUGINS[name](io.BytesIO(data))
        if image.width * image.height != size[0] * size[1]:
            raise ValueError(f"a header of {size[0]}x{size[1]} and of {image.width}x{image.height} pixels")
        image.load()
    return image


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


def avif_size(data: bytes) -> tuple[int, int]:
    """Width and height of the first image."""
    with _blaming_the_bytes("avif"):
        return _PLUGINS["avif"](io.BytesIO(data)).size


# What the header says of width and height.
SIZES: Final[dict[str, Callable[[bytes], tuple[int, int]]]] = {
    "webp": webp_size,
    "bmp": bmp.size,
    "tiff": tiff.size,
    "avif": avif_size,
}


@contextmanager
def _blaming_the_bytes(name: str) -> Iterator[None]:
    """Whatever a plugin stumbles over, the bytes are to blame: plugins raise what parsing raised."""
    try:
        yield
    except MemoryError:
        raise
    except Exception as exc:
        raise UndecodableImage(f"{name.upper()}: truncated, corrupt or of an unknown kind: {exc}") from exc
