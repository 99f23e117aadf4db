"""What every reader hands on: decoded pixels and how they must be turned."""

from __future__ import annotations

from typing import NamedTuple

from PIL import Image


class Picture(NamedTuple):
    """A decoded image before colours, orientation and size are the contract's.

    Attributes:
        image: Any mode that `service.images.colours.flatten` takes.
        orientation: EXIF orientation still to be applied, 1 (none) to 8.
    """

    image: Image.Image
    orientation: int = 1
