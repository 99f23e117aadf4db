"""GIF's first frame, found and checked before Pillow reads it.

::

    screen ─ width, height, palette    extensions ─ transparency, comments …    frame ─ place, palette, pixels

Pillow is given that frame alone. It fills what a small frame leaves free of its screen with the palette's
first colour, takes greys where there is no palette, and black for colours that the palette does not have;
here the first is transparent, as browsers show it, and the others are refused.

Source: GIF89a specification (CompuServe, 1990), sections 18 to 23.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple

import numpy as np
from PIL import Image

from service.errors import UndecodableImage

_CONTROL: Final = 0xF9
# Comments and profiles before the first frame; they are walked in small steps, before any limit applies.
_MAX_PREAMBLE_BYTES: Final = 256 * 1024
# Sub-blocks of the first frame: 255 bytes each is the habit, 1 byte possible.
_MAX_BLOCKS: Final = 262_144


class Frame(NamedTuple):
    """The first frame; the comments before it cost time only.

    Attributes:
        screen: Width and height, enlarged where the frame exceeds them.
        place: Left and top of the frame on its screen.
        size: Its width and height.
        screen_end: Where the screen's header and palette end.
        control: Its graphic control extension (transparency), or nothing.
        start: Where its image descriptor begins.
        colours: Of its palette, or the screen's; 0 where there is none.
    """

    screen: tuple[int, int]
    place: tuple[int, int]
    size: tuple[int, int]
    screen_end: int
    control: bytes
    start: int
    colours: int


def size(data: bytes) -> tuple[int, int]:
    """Width and height of the screen, enlarged where the first frame exceeds it."""
    return first_frame(data).screen


def first_frame(data: bytes) -> Frame:
    """Where the first frame is, and how large.

    Raises:
        UndecodableImage: There is none, or too much stands before it.
    """
    try:
        position = screen_end = 13 + _palette_bytes(data[10])
        control = b""
        while data[position] == ord("!"):  # extensions
            end = _blocks_end(data, position + 2)
            if data[position + 1] == _CONTROL:
                control = data[position:end]
            position = end
            if position > _MAX_PREAMBLE_BYTES:
                raise UndecodableImage(f"GIF: more than {_MAX_PREAMBLE_BYTES} bytes before the first frame")
        if data[position] != ord(","):
            raise UndecodableImage("GIF: no frame")
        width, height = struct.unpack_from("<HH", data, 6)
        left, top, frame_width, frame_height, flags = struct.unpack_from("<HHHHB", data, position + 1)
    except (IndexError, struct.error) as exc:
        raise UndecodableImage("GIF: truncated") from exc
    screen = max(width, left + frame_width), max(height, top + frame_height)
    colours = (_palette_bytes(flags) or _palette_bytes(data[10])) // 3
    return Frame(screen, (left, top), (frame_width, frame_height), screen_end, control, position, colours)


def alone(data: bytes, frame: Frame) -> bytes:
    """A file whose screen is this frame, which must be complete and followed by something.

    Raises:
        UndecodableImage: It is not, or has no palette.
    """
    if not frame.colours:
        raise UndecodableImage("GIF: no palette")
    pixels = frame.start + 10
    try:
        end = _blocks_end(data, pixels + _palette_bytes(data[pixels - 1]) + 1)
        if data[end] not in b";,!":
            raise UndecodableImage("GIF: garbage after the first frame")
    except IndexError as exc:
        raise UndecodableImage("GIF: truncated") from exc
    screen = data[:6] + struct.pack("<HH", *frame.size) + data[10 : frame.screen_end]
    descriptor = b"," + struct.pack("<HHHH", 0, 0, *frame.size) + data[pixels - 1 : end]
    return screen + frame.control + descriptor + b";"


def placed(image: Image.Image, frame: Frame) -> Image.Image:
    """The frame's pixels on its screen.

    Raises:
        UndecodableImage: A pixel's colour is not in the palette.
    """
    highest = np.asarray(image).max()  # in mode L too: then every colour is the grey of its own number
    if highest >= frame.colours:
        raise UndecodableImage(f"GIF: colour {highest} of a palette of {frame.colours}")
    if image.size == frame.screen:
        return image
    screen = Image.new("RGBA", frame.screen)
    screen.paste(image.convert("RGBA"), frame.place)
    return screen


def _palette_bytes(flags: int) -> int:
    return 3 << (flags & 7) + 1 if flags & 0x80 else 0


def _blocks_end(data: bytes, position: int) -> int:
    """The position after a chain of sub-blocks and its terminator."""
    for _ in range(_MAX_BLOCKS):
        length = data[position]
        position += 1 + length
        if not length:
            return position
    raise UndecodableImage(f"GIF: more than {_MAX_BLOCKS} sub-blocks in a row")
