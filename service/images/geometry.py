"""How a picture of another size becomes H × W: stretch, shorter side and centre crop, or letterbox.

::

    stretch        w × h ─resize▶ W × H
    shorter_side   w × h ─resize▶ shorter side = resize_to ─centre crop▶ W × H    (one resampling of the crop)
    letterbox      w × h ─resize▶ the largest that fits ─centre on fill▶ W × H

Rounding is torchvision's, so that its checkpoints see what they were trained on: the longer side is
``int(resize_to · longer / shorter)``, the crop begins at ``round((scaled - crop) / 2)``. Resampling is
antialiased (Pillow's), so a picture that shrinks is averaged, not sampled.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from service.artifact import ColourOrder, InputContract, Interpolation, Resize
from service.images.orientation import starts_at_bottom, starts_at_right

_FILTERS: Final = {
    Interpolation.NEAREST: Image.Resampling.NEAREST,
    Interpolation.BILINEAR: Image.Resampling.BILINEAR,
    Interpolation.BICUBIC: Image.Resampling.BICUBIC,
    Interpolation.LANCZOS: Image.Resampling.LANCZOS,
}
_REDUCTIONS: Final = (8, 4, 2)
# What the final resize must still shrink by, so that its filter and not the DCT's box decides.
_REDUCING_GAP: Final = 2


class Area(NamedTuple):
    """Where a picture lies in the pixels that a decoder gave.

    A decoder that reduces 375 rows by 8 gives 47, of which the last is only seven eighths picture: the
    picture is 46.875 rows high, and where it was turned over, it begins 0.125 rows below the top.

    Attributes:
        width: Of the upright picture, before any reduction.
        height: Likewise.
        reduction: The factor by which the decoder reduced it.
        left: Where the picture begins, in reduced pixels.
        top: Likewise.
    """

    width: int
    height: int
    reduction: int = 1
    left: float = 0.0
    top: float = 0.0


def area_of(image: Image.Image, width: int, height: int, reduction: int, orientation: int) -> Area:
    """The area of an upright ``image`` that was reduced as stored, and then turned."""
    left = image.width - width / reduction if starts_at_right(orientation) else 0.0
    top = image.height - height / reduction if starts_at_bottom(orientation) else 0.0
    return Area(width, height, reduction, left, top)


class _Plan(NamedTuple):
    """The picture is scaled to ``width × height``; of that, the crop at ``left, top`` is computed."""

    width: int
    height: int
    left: int
    top: int
    crop_width: int
    crop_height: int


def reduction(width: int, height: int, contract: InputContract) -> int:
    """By how much (1, 2, 4 or 8) the JPEG decoder may shrink an upright ``width × height`` picture.

    At least twice the final size is left for the antialiased resize.
    """
    if contract.interpolation is Interpolation.NEAREST:
        return 1  # it picks pixels; shrinking before would average them
    plan = _planned(width, height, contract)
    for factor in _REDUCTIONS:
        gap = factor * _REDUCING_GAP
        if width >= plan.width * gap and height >= plan.height * gap:
            return factor
    return 1


def fit(image: Image.Image, area: Area, contract: InputContract) -> NDArray[np.uint8]:
    """The pixels the graph wants.

    Args:
        image: Upright, mode L or RGB, perhaps reduced by the decoder.
        area: Which part of ``image`` is the picture, and how large the picture is in full.
        contract: Size, resize rule, interpolation, fill and colour order.

    Returns:
        uint8 [H, W, C], contiguous; not always writable.
    """
    target = contract.width, contract.height
    if contract.resize_to is None and image.size == target == (area.width, area.height):
        return _channels(image, contract)
    plan = _planned(area.width, area.height, contract)
    pixels = _channels(_resampled(image, area, plan, contract), contract)
    return _framed(pixels, contract) if contract.resize is Resize.LETTERBOX else pixels


def _planned(width: int, height: int, contract: InputContract) -> _Plan:
    target = contract.width, contract.height
    if contract.resize is Resize.LETTERBOX:
        scale = min(contract.width / width, contract.height / height)
        inner = max(1, round(width * scale)), max(1, round(height * scale))
        return _Plan(*inner, 0, 0, *inner)
    if contract.resize_to is None:
        return _Plan(*target, 0, 0, *target)
    shorter = min(width, height)
    scaled_width = int(contract.resize_to * width / shorter)
    scaled_height = int(contract.resize_to * height / shorter)
    left, top = round((scaled_width - target[0]) / 2), round((scaled_height - target[1]) / 2)
    return _Plan(scaled_width, scaled_height, left, top, *target)


def _resampled(image: Image.Image, area: Area, plan: _Plan, contract: InputContract) -> Image.Image:
    """Only the crop is computed: a thread-thin picture scaled whole would fill the memory."""
    across = area.width / area.reduction / plan.width
    down = area.height / area.reduction / plan.height
    box = (
        area.left + plan.left * across,
        area.top + plan.top * down,
        min(area.left + (plan.left + plan.crop_width) * across, image.width),
        min(area.top + (plan.top + plan.crop_height) * down, image.height),
    )
    return image.resize((plan.crop_width, plan.crop_height), _FILTERS[contract.interpolation], box)


def _framed(pixels: NDArray[np.uint8], contract: InputContract) -> NDArray[np.uint8]:
    height, width, channels = pixels.shape
    frame = np.empty((contract.height, contract.width, channels), dtype=np.uint8)
    frame[:] = contract.fill
    top, left = (contract.height - height) // 2, (contract.width - width) // 2
    frame[top : top + height, left : left + width] = pixels
    return frame


def _channels(image: Image.Image, contract: InputContract) -> NDArray[np.uint8]:
    """Mode L or RGB as [h, w, C] in the contract's colour order."""
    if image.mode == "L" and contract.channels == 3:
        image = image.convert("RGB")
    order = "BGR" if contract.colour_order is ColourOrder.BGR else image.mode
    return np.frombuffer(image.tobytes("raw", order), dtype=np.uint8).reshape(
        image.height, image.width, contract.channels
    )
