"""Every mode a reader may hand on becomes grey or RGB, 8 bits a channel, without transparency.

Transparent pixels show the contract's fill, the same that letterboxing uses. Grey is ITU-R BT.601 luma
(0.299 R + 0.587 G + 0.114 B), as JPEG stores it.
"""

from __future__ import annotations

from PIL import Image

from service.artifact import ColourOrder, InputContract
from service.errors import UndecodableImage

_OPAQUE = frozenset({"1", "P", "CMYK", "YCbCr", "RGBX", "L", "RGB"})
_TRANSLUCENT = frozenset({"P", "L", "RGB", "PA", "LA", "La", "RGBA", "RGBa"})


def flatten(image: Image.Image, contract: InputContract) -> Image.Image:
    """The picture in mode L, or in mode RGB where it has colours and the contract wants them.

    Raises:
        UndecodableImage: A mode without an agreed meaning in 8 bits (32-bit integers, floats, Lab).
    """
    gray = contract.channels == 1
    if (image.mode == "L" or (image.mode == "RGB" and not gray)) and "transparency" not in image.info:
        return image
    if image.has_transparency_data and image.mode in _TRANSLUCENT:
        return _composited(image.convert("RGBA"), contract)
    if image.mode not in _OPAQUE:
        raise UndecodableImage(f"pixels of kind {image.mode!r} have no agreed meaning in 8 bits")
    if image.mode == "1" or gray:
        return image.convert("L")
    return image.convert("RGB")


def _composited(image: Image.Image, contract: InputContract) -> Image.Image:
    """An RGBA picture on the fill. It is its own mask: a copy of a large one would cost as much again."""
    if contract.channels == 1:
        background = Image.new("L", image.size, contract.fill[0])
        background.paste(image.convert("L"), mask=image)
        return background
    is_bgr = contract.colour_order is ColourOrder.BGR
    background = Image.new("RGB", image.size, contract.fill[::-1] if is_bgr else contract.fill)
    background.paste(image, mask=image)
    return background
