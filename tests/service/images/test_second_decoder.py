"""Pixels against those of a second decoder, OpenCV: own readers of BMP and GIF, own builds of the libraries.

Neither is right by definition: where the two differ beyond the format's bound, `WHERE_OPENCV_DIFFERS` says
who is right and why, and a picture in that table must differ indeed.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any, Final, TypeAlias

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray
from PIL import Image

from service.artifact import InputContract
from service.images import FORMATS, decode
from tests.service.images.contracts import contract
from tests.service.images.corpus import FILL, Specimen, specimens
from tests.service.images.encoders import exif, saved

Pixels: TypeAlias = NDArray[np.uint8]
Decoder: TypeAlias = Callable[[bytes, InputContract], Pixels]

# Greatest difference of a channel, of 255. Inks become colours with other roundings; all else is fixed by the
# standards. Compositing on the fill adds 1.
BOUNDS: Final = {"png": 0, "gif": 0, "bmp": 0, "tiff": 0, "webp": 0, "jpeg": 2, "avif": 0}
WHERE_OPENCV_DIFFERS: Final = {
    r"png-gray-.*transparent-colour": "it ignores tRNS of grey pictures; PNG 11.3.1.1 has it",
    r"tiff-rgb-alpha": "it takes the colours as multiplied by alpha, and the file says they are not",
    r"tiff-gray-16-bit-white-is-zero": "it turns only 8 bits over; TIFF 6.0 makes no difference",
    r"bmp-565": "it fills 5 bits up with zeros, so that white is none",
    r"avif-orientation-[2-8]": "it leaves irot and imir out; browsers turn, and so do we",
    r"tiff-rgb-tiles|tiff-gray-[24]-bit|gif-larger-than-its-screen": "it does not read them",
    r"tiff-rgb-times-alpha": "it takes the colours as not multiplied by alpha, and the file says they are",
    r"tiff-rgb-and-another-sample": "it takes for alpha what the file says is none",
    r"gif-smaller-than-its-screen": "it shows a colour around the frame; browsers show what is behind it",
    r"bmp-of-os2": "it gives them as grey, though it has read their colours",
}
EXPECTED_DIFFERENCE: Final = re.compile("|".join(WHERE_OPENCV_DIFFERS))


def second_decoder(data: bytes, *, turn: bool = False) -> Pixels | None:
    """uint8 [h, w, 3], RGB, on `FILL` where it is transparent; upright if ``turn``, but then opaque.

    None where it does not read the file.
    """
    found = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR if turn else cv2.IMREAD_UNCHANGED)
    if found is None:
        return None
    pixels = np.atleast_3d(found)
    if pixels.dtype == np.uint16:
        pixels = (pixels.astype(np.uint16) >> 8).astype(np.uint8)
    channels = pixels.shape[2]
    has_alpha = channels in (2, 4)
    colours = pixels[:, :, 2::-1] if channels >= 3 else np.repeat(pixels[:, :, :1], 3, axis=2)
    if not has_alpha:
        return colours.astype(np.uint8)
    weight = pixels[:, :, -1:].astype(np.float64) / 255
    return np.rint(colours * weight + np.array(FILL) * (1 - weight)).astype(np.uint8)


def difference(data: bytes, *, turn: bool = False, decoder: Decoder = decode) -> float:
    """The greatest between the two decoders; infinite where they do not even agree on the size."""
    theirs = second_decoder(data, turn=turn)
    if theirs is None:
        return np.inf
    height, width = theirs.shape[:2]
    ours = decoder(data, contract(height, width, fill=FILL))
    as_stored = decoder(data, contract(height, width, fill=FILL, resize="letterbox"))
    if not np.array_equal(ours, as_stored):  # it was stretched: another size
        return np.inf
    return int(np.abs(ours.astype(int) - theirs).max())


@pytest.mark.parametrize("specimen", specimens(), ids=lambda specimen: specimen.name)
def test_every_kind_of_picture_has_the_second_decoders_pixels(specimen: Specimen) -> None:
    found = difference(specimen.data, turn="orientation" in specimen.name)
    if EXPECTED_DIFFERENCE.fullmatch(specimen.name):
        assert found > BOUNDS[specimen.format] + 1
    else:
        assert found <= BOUNDS[specimen.format] + ("alpha" in specimen.name)


def test_every_format_has_its_bound() -> None:
    assert set(BOUNDS) == FORMATS


@st.composite
def pictures(draw: st.DrawFn) -> tuple[str, bytes, bool]:
    """A format's name, a file of it, and whether it is to be turned."""
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    values = np.random.default_rng(draw(st.integers(0, 2**16)))
    smooth = draw(st.booleans())
    shape = (height, width, 3)
    samples = np.indices(shape).sum(0) * 7 % 256 if smooth else values.integers(0, 256, shape)
    image = Image.fromarray(samples.astype(np.uint8))
    name = draw(st.sampled_from(sorted(FORMATS)))
    options: dict[str, Any] = {}
    if name == "jpeg":
        image = image.convert(draw(st.sampled_from(["RGB", "L", "CMYK"])))
        options = {
            "quality": draw(st.integers(1, 100)),
            "progressive": draw(st.booleans()),
            "subsampling": draw(st.integers(0, 2)) if image.mode != "CMYK" else 0,
        }
    elif name in ("webp", "avif"):
        options = {"quality": draw(st.integers(10, 100))}
    elif name in ("png", "tiff", "gif"):
        image = image.convert(draw(st.sampled_from(["RGB", "L", "P", "1"] if name != "gif" else ["P", "L"])))
    turn = name in ("jpeg", "png") and image.mode != "CMYK" and draw(st.booleans())
    if turn:
        options["exif"] = exif(draw(st.integers(1, 8)))
    return name, saved(image, name.upper(), **options), turn


@settings(max_examples=150)
@given(pictures())
def test_random_pictures_have_the_second_decoders_pixels(picture: tuple[str, bytes, bool]) -> None:
    name, data, turn = picture
    assert difference(data, turn=turn) <= BOUNDS[name]


@pytest.mark.data
def test_photographs_have_the_second_decoders_pixels_in_every_format(data_dir: Path) -> None:
    photos = [path.read_bytes() for path in sorted((data_dir / "photos").glob("*.JPEG"))]
    assert max(difference(data, turn=True) for data in photos) == 0
    small = [Image.open(BytesIO(data)) for data in photos if len(data) < 12_000]
    assert len(small) > 3
    for name in sorted(FORMATS):
        for mode in ("RGB", "L"):
            found = max(difference(saved(photo.convert(mode), name.upper())) for photo in small)
            assert found <= BOUNDS[name], (name, mode)


@pytest.mark.parametrize(
    "fault",
    [lambda pixels: pixels[:, :, ::-1], np.flipud, lambda pixels: pixels ^ 1],
    ids=["bgr", "up", "one"],
)
def test_a_decoder_with_a_fault_is_noticed(fault: Callable[[Pixels], Pixels]) -> None:
    data = next(each.data for each in specimens() if each.name == "png-rgb-interlaced")
    assert difference(data) == 0
    assert difference(data, decoder=lambda data, contract: fault(decode(data, contract))) > 0
