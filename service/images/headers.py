"""What the first bytes say: the format, and its width and height against the limits."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final, NamedTuple

from service.errors import TooManyPixels, UndecodableImage, UnsupportedMediaType
from service.images import gif, jpeg, plugins, png, tiff

FORMATS: Final = frozenset({"jpeg", "png", "webp", "bmp", "gif", "tiff", "avif"})

# A hop to a pool thread and back costs about as much as decoding so many pixels, or walking so many bytes.
_QUICK_PIXELS: Final = 128 * 128
_QUICK_BYTES: Final = 128 * 1024
# Of these formats, so many pixels in so many bytes take a few milliseconds, and few tens at worst.
_MODERATE_PIXELS: Final = 512 * 1024
_MODERATE_BYTES: Final = 512 * 1024
_MODERATE_FORMATS: Final = frozenset({"jpeg", "png"})

# Formats with a signature of their own that Foldserve does not read; naming them helps the client.
_FOREIGN_BRANDS: Final = {
    b"heic": "HEIC",
    b"heix": "HEIC",
    b"heim": "HEIC",
    b"heis": "HEIC",
    b"hevc": "HEIC",
    b"hevx": "HEIC",
}
_FOREIGN_MAGICS: Final = (
    (b"\x00\x00\x00\x0cJXL \r\n\x87\n", "JPEG XL"),
    (b"\xff\x0a", "JPEG XL"),
    (b"\x00\x00\x00\x0cjP  \r\n\x87\n", "JPEG 2000"),
    (b"\xff\x4f\xff\x51", "JPEG 2000"),
    (b"\x00\x00\x01\x00", "ICO"),
    (b"8BPS", "Photoshop"),
)
_AVIF_BRANDS: Final = frozenset({b"avif", b"avis", b"mif1", b"msf1"})

_SIZES: Final[dict[str, Callable[[bytes], tuple[int, int]]]] = {
    "png": png.size,
    "jpeg": jpeg.size,
    "gif": gif.size,
    **plugins.SIZES,
}


@dataclass(frozen=True, slots=True)
class DecodeLimits:
    """What may be decoded at all.

    Attributes:
        max_pixels: Width · height that a header may announce; more is refused before decoding.
            Decoding takes 4 to 24 bytes of memory a pixel, by format and depth, and about a second for 50
            million of them.
        formats: Names out of `FORMATS`; another recognised format is refused by its name.
    """

    max_pixels: int = 50_000_000
    formats: frozenset[str] = FORMATS


DEFAULT_LIMITS: Final = DecodeLimits()


class ImageInfo(NamedTuple):
    """What an image's header says. Width and height as stored, before any EXIF orientation."""

    format: str
    width: int
    height: int

    @property
    def pixels(self) -> int:
        """Width · height."""
        return self.width * self.height


def is_quick(data: bytes | memoryview, limits: DecodeLimits = DEFAULT_LIMITS) -> bool:
    """Whether decoding costs less than a hop to another thread and back: few pixels in few bytes.

    Raises:
        UnsupportedMediaType, UndecodableImage, TooManyPixels: As `probe`, where it is few bytes.
    """
    return len(data) <= _QUICK_BYTES and probe(data, limits).pixels <= _QUICK_PIXELS


def is_moderate(data: bytes | memoryview, limits: DecodeLimits = DEFAULT_LIMITS) -> bool:
    """Whether others can wait for its decoding: a photograph of the size that networks are sent.

    Raises:
        UnsupportedMediaType, UndecodableImage, TooManyPixels: As `probe`, where it is few bytes.
    """
    if len(data) > _MODERATE_BYTES:
        return False
    info = probe(data, limits)
    return info.format in _MODERATE_FORMATS and info.pixels <= _MODERATE_PIXELS


def probe(data: bytes | memoryview, limits: DecodeLimits = DEFAULT_LIMITS) -> ImageInfo:
    """What the header says; no pixel is decoded.

    Args:
        data: One encoded image; not modified.
        limits: Formats and pixels that may be decoded.

    Raises:
        UnsupportedMediaType: A recognised format that is switched off or not known to Foldserve.
        UndecodableImage: An unknown or corrupt header.
        TooManyPixels: More pixels than ``limits.max_pixels``.
    """
    data = bytes(data)  # no copy where it is bytes already
    name = _sniff(data)
    if name not in limits.formats:
        raise UnsupportedMediaType(f"{name.upper()} images are switched off; {_accepted(limits)}")
    width, height = _SIZES[name](data)
    if width < 1 or height < 1:
        raise UndecodableImage(f"{name.upper()} image of {width}x{height} pixels")
    if width * height > limits.max_pixels:
        raise TooManyPixels(
            f"{width}x{height} is {width * height} pixels; at most {limits.max_pixels} are accepted"
        )
    return ImageInfo(name, width, height)


def _sniff(data: bytes) -> str:
    if data.startswith(png.MAGIC):
        return "png"
    if data.startswith(jpeg.MAGIC):
        return "jpeg"
    if data.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    if data.startswith(b"RIFF") and data[8:12] == b"WEBP":
        return "webp"
    if data.startswith(tiff.MAGICS):
        return "tiff"
    if data[4:8] == b"ftyp" and data[8:12] in _AVIF_BRANDS:
        return "avif"
    if data.startswith(b"BM"):
        return "bmp"
    return _refuse_unknown(data)


def _refuse_unknown(data: bytes) -> str:
    brand = _FOREIGN_BRANDS.get(data[8:12]) if data[4:8] == b"ftyp" else None
    foreign = brand or next((name for magic, name in _FOREIGN_MAGICS if data.startswith(magic)), None)
    if foreign is not None:
        raise UnsupportedMediaType(f"{foreign} images are not read; {_accepted(DEFAULT_LIMITS)}")
    raise UndecodableImage("these bytes begin like no image format known here" if data else "no bytes")


def _accepted(limits: DecodeLimits) -> str:
    return f"accepted: {', '.join(sorted(limits.formats))}"
