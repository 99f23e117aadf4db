"""JPEG by libjpeg-turbo: strict about damage, tolerant about harmless disorder, scaled where it pays.

libjpeg goes on after damage and fills in grey; here its first warning ends the decoding. A picture
that warns gets one second chance, with everything replaced that has no say in its pixels::

    SOI  APP0 ── written anew            DQT SOF DHT DRI APP14 ── kept      SOS ── band limits that a
         APP1…13, APP15, COM ── dropped  bytes between segments ── dropped         sequential JPEG ignores
    entropy-coded data ── kept           zeros before EOI ── dropped               ── written as they must be

If that decodes without a warning the disorder was harmless. A flipped bit that still spells valid
Huffman codes cannot be seen by any decoder: JPEG carries no checksum.

libjpeg-turbo's pixels are those of Pillow (the same library), without Pillow's Python around it.

Source: ITU-T T.81, JFIF 1.02, Adobe technical note 5116 (APP14).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Final

import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image

from service.errors import UndecodableImage
from service.images.orientation import exif_orientation

MAGIC: Final = b"\xff\xd8\xff"

_SOF_SEQUENTIAL: Final = (0xC0, 0xC1)
_SOS, _EOI, _APP0, _APP1, _APP14 = 0xDA, 0xD9, 0xE0, 0xE1, 0xEE
# SOF0…SOF15 with DHT and DAC among them, DQT, DRI, and Adobe's colour transform.
_SAY_IN_PIXELS: Final = frozenset({*range(0xC0, 0xD0), 0xDB, 0xDD, _APP14}) - {0xC8}
_STANDALONE: Final = frozenset({0x01, *range(0xD0, 0xD8)})
_NO_MARKER: Final = (0x00, 0xFF)
_JFIF: Final = b"\xff\xe0\x00\x10JFIF\x00\x01\x01\x00\x00\x01\x00\x01\x00\x00"
_SEQUENTIAL_BAND: Final = b"\x00\x3f\x00"

# Each scan walks the whole picture again: a few kilobytes could keep a core busy for seconds. A progressive
# picture has 10 scans as a rule. This allows 12 of any, 20 of 30 million pixels, 100 of 6 million.
_USUAL_SCANS: Final = 12
_MAX_SCANS: Final = 100
_MAX_SCANNED_PIXELS: Final = 600_000_000
# More headers than any camera writes, few enough to walk quickly.
_MAX_SEGMENTS: Final = 4_096

# Up to here searching the bytes is quicker than walking the segments.
_SHORT_BYTES: Final = 8_192

_MARKER: Final = re.compile(rb"\xff+([\x01-\xfe])")


def size(data: bytes) -> tuple[int, int]:
    """Width and height as the frame header says."""
    height, width, _ = _header(data)
    return width, height


def orientation(data: bytes) -> int:
    """EXIF orientation, 1 to 8; 1 where there is none."""
    if len(data) <= _SHORT_BYTES and b"Exif\x00\x00" not in data:
        return 1
    for marker, start, end in _segments(data):
        if marker == _APP1 and data.startswith(b"Exif\x00\x00", start + 4):
            return exif_orientation(data[start + 4 : end])
    return 1


def read(data: bytes, gray: bool, reduction: int = 1) -> NDArray[np.uint8]:
    """The pixels, uint8 [h, w, 3] in RGB order, or [h, w, 1].

    Args:
        data: The file.
        gray: One channel is wanted (the luma that the file stores, without going through RGB).
        reduction: 1, 2, 4 or 8: decode to 1/reduction of the size, rounded up. The inverse DCT computes
            the small picture directly, so most of the work is never done.

    Raises:
        UndecodableImage: Damage, or a kind of JPEG that libjpeg-turbo does not read.
    """
    height, width, space = _header(data)
    scans = _count_scans(data)
    if scans > _USUAL_SCANS and scans > min(_MAX_SCANS, _MAX_SCANNED_PIXELS // (width * height)):
        raise UndecodableImage(f"JPEG: {scans} scans of {width}x{height} pixels")
    if space in ("CMYK", "YCCK"):
        return _from_cmyk(_strictly(data, "CMYK", width, height, reduction), data, gray)
    target = "GRAY" if gray or space == "Gray" else "RGB"
    return _strictly(data, target, width, height, reduction)


def _header(data: bytes) -> tuple[int, int, str]:
    try:
        height, width, space, _ = simplejpeg.decode_jpeg_header(data, strict=False)
    except MemoryError:
        raise
    except Exception as exc:  # ValueError with libjpeg's words, but KeyError for some broken headers
        raise UndecodableImage(f"JPEG: unreadable header: {exc}") from exc
    return height, width, space


def _count_scans(data: bytes) -> int:
    """At least as many as libjpeg will read."""
    if len(data) > _SHORT_BYTES and _has_one_scan(data):
        return 1
    return data.count(b"\xff\xda")


def _has_one_scan(data: bytes) -> bool:
    """Whether the first scan of a sequential picture has all its components: libjpeg takes no second."""
    components = None
    for marker, start, _ in _segments(data):
        if marker in _SOF_SEQUENTIAL:
            components = data[start + 9 : start + 10]
        elif marker == _SOS:
            return data[start + 4 : start + 5] == components
    return False


def _strictly(data: bytes, space: str, width: int, height: int, reduction: int) -> NDArray[np.uint8]:
    least_height, least_width = -(-height // reduction), -(-width // reduction)
    try:
        return _decoded(data, space, least_width, least_height)
    except MemoryError:
        raise
    except Exception as first:
        tidied = _tidied(data)
        try:
            if tidied != data:
                return _decoded(tidied, space, least_width, least_height)
        except Exception:  # noqa: S110 - the first attempt said what is wrong
            pass
        raise UndecodableImage(f"JPEG: truncated or corrupt: {first}") from first


def _decoded(data: bytes, space: str, min_width: int, min_height: int) -> NDArray[np.uint8]:
    pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(
        data, space, min_height=min_height, min_width=min_width, strict=True
    )
    return pixels


def _from_cmyk(inks: NDArray[np.uint8], data: bytes, gray: bool) -> NDArray[np.uint8]:
    """Inks [h, w, 4] as RGB or luma. With Adobe's marker 255 means no ink, by convention."""
    if any(marker == _APP14 for marker, _, _ in _segments(data)):
        inks = 255 - inks
    image = Image.fromarray(inks, "CMYK").convert("RGB")
    return np.asarray(image.convert("L"))[:, :, None] if gray else np.asarray(image)


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """Marker, start and end of each header segment up to and with the first SOS."""
    start = 2
    for _ in range(_MAX_SEGMENTS):
        marker = data[start + 1] if data[start : start + 1] == b"\xff" and start + 1 < len(data) else 0xFF
        if marker in _NO_MARKER:  # fill bytes, or bytes between segments
            match = _MARKER.search(data, start)
            if match is None:
                return
            marker, start = match[1][0], match.end() - 2
        if marker in _STANDALONE:
            start += 2
            continue
        end = start + 2 + int.from_bytes(data[start + 2 : start + 4])
        yield marker, start, end
        if marker in (_SOS, _EOI):
            return
        start = end


def _tidied(data: bytes) -> bytes:
    """The same picture with only what has a say in its pixels."""
    parts, is_sequential = [b"\xff\xd8"], False
    for marker, start, end in _segments(data):
        is_sequential |= marker in _SOF_SEQUENTIAL
        if marker == _SOS:
            header = data[start:end]
            parts.append(header[:-3] + _SEQUENTIAL_BAND if is_sequential else header)
            parts.append(_without_padding(data[end:]))
        elif marker in _SAY_IN_PIXELS:
            parts.append(data[start:end])
        elif marker == _APP0 and data.startswith(b"JFIF\x00", start + 4):
            parts.append(_JFIF)
    return b"".join(parts)


def _without_padding(scans: bytes) -> bytes:
    """The entropy-coded data and what follows, without zeros just before the first EOI."""
    end = scans.find(b"\xff\xd9")
    if end < 0:
        return scans
    body = scans[:end].rstrip(b"\x00")
    stuffed = b"\x00" if body.endswith(b"\xff") else b""
    return body + stuffed + scans[end:]
