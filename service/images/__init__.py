"""How bytes become pixels: one implementation for training, export, self-test and service.

::

    bytes ─▶ probe ──────────▶ read ───────────────▶ flatten ──────▶ upright ────▶ fit ─▶ uint8 [H, W, C]
             headers: format,  png      own reader    alpha on fill,  EXIF          resize, crop, pad,
             width, height;    jpeg     libjpeg-turbo 16 → 8 bit,     orientation   colour order
             the limits        plugins  Pillow        gray / RGB

The bytes decide what an image is, never a declared type. Whatever is wrong ends in exactly one of
three errors: `UnsupportedMediaType` (a format we recognise and do not take), `TooManyPixels` (from
the header, before a pixel is decoded) and `UndecodableImage` (unknown, truncated or corrupt bytes).
Truncated data is refused even where the pixels happen to be complete: nothing is ever guessed.

Everything that costs time runs in C without the interpreter lock, so big images decode in parallel
in a thread pool; `is_quick` says when the hop to another thread costs more than it gains, `is_moderate`
when the thread that runs the network can decode as well.
"""

from service.images.decoding import decode
from service.images.headers import FORMATS, DecodeLimits, ImageInfo, is_moderate, is_quick, probe

__all__ = ["FORMATS", "DecodeLimits", "ImageInfo", "decode", "is_moderate", "is_quick", "probe"]
