"""What every reader hands on: decoded pixels and how they must be turned."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image


class Picture(NamedTuple):
    """A decoded image before colours, orientation and size are the contract's.

    Attributes:
        pixels: uint8 [h, w, 1] or [h, w, 3] (RGB), opaque; or a Pillow image of any mode that
            `service.images.colours.flatten` takes.
        orientation: EXIF orientation still to be applied, 1 (none) to 8.
    """

    pixels: NDArray[np.uint8] | Image.Image
    orientation: int = 1


def as_image(pixels: NDArray[np.uint8] | Image.Image) -> Image.Image:
    """The pixels as a Pillow image: grey ones share their memory, RGB ones are copied."""
    if isinstance(pixels, Image.Image):
        return pixels
    return Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels)
