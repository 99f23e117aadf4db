"""Every accepted kind of picture gives the pixels it was made from; a decoder with a fault does not."""

from __future__ import annotations

from collections.abc import Callable
from io import BytesIO

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from service.artifact import InputContract
from service.images import FORMATS, decode, probe
from tests.service.images.contracts import contract
from tests.service.images.corpus import FILL, Specimen, specimens
from tests.service.images.encoders import saved

Decoder = Callable[[bytes, InputContract], NDArray[np.uint8]]

_LUMA = np.array([0.299, 0.587, 0.114])
_GRAY_FILL = round(float(_LUMA @ FILL))
SPECIMENS = pytest.mark.parametrize("specimen", specimens(), ids=lambda specimen: specimen.name)


def check(decoder: Decoder, specimen: Specimen, colour_order: str) -> None:
    """Asserts that the decoder gives the specimen's pixels in that order, within its tolerance."""
    height, width, _ = specimen.pixels.shape
    fill = {"rgb": FILL, "bgr": FILL[::-1], "gray": (_GRAY_FILL,)}[colour_order]
    pixels = decoder(specimen.data, contract(height, width, colour_order, fill=fill))
    expected = specimen.pixels.astype(np.float64)
    if colour_order == "gray":
        expected = np.rint(expected @ _LUMA)[:, :, None]
    elif colour_order == "bgr":
        expected = expected[:, :, ::-1]
    slack = 1 if colour_order == "gray" and specimen.tolerance == 0 else specimen.tolerance
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    assert pixels.shape == expected.shape
    assert np.abs(pixels - expected).max() <= slack


@SPECIMENS
@pytest.mark.parametrize("colour_order", ["rgb", "bgr", "gray"])
def test_pixels_are_those_the_file_was_made_from(specimen: Specimen, colour_order: str) -> None:
    check(decode, specimen, colour_order)


@SPECIMENS
def test_the_header_tells_format_and_stored_size(specimen: Specimen) -> None:
    info = probe(specimen.data)
    assert info.format == specimen.format
    assert sorted((info.height, info.width)) == sorted(specimen.pixels.shape[:2])


def test_the_corpus_has_every_format() -> None:
    assert {specimen.format for specimen in specimens()} == FORMATS


@SPECIMENS
def test_a_memoryview_decodes_like_its_bytes(specimen: Specimen) -> None:
    wanted = contract(8, 8)
    inside = memoryview(b"before" + specimen.data)[6:]
    assert np.array_equal(decode(inside, wanted), decode(specimen.data, wanted))


JPEGS = [s for s in specimens() if s.format == "jpeg" and "odd" not in s.name and "orientation" not in s.name]


@pytest.mark.parametrize("specimen", JPEGS, ids=lambda specimen: specimen.name)
def test_jpeg_pixels_are_those_of_a_second_decoder(specimen: Specimen) -> None:
    height, width, _ = specimen.pixels.shape
    with Image.open(BytesIO(specimen.data)) as image:
        assert np.array_equal(
            decode(specimen.data, contract(height, width)), np.asarray(image.convert("RGB"))
        )


PNGS = [s for s in specimens() if s.format == "png" and "orientation" not in s.name and s.tolerance == 0]
# Pillow compares 16-bit colour keys with 8-bit pixels, and unscaled keys with scaled ones.
PILLOW_DIFFERS = ("bit-transparent-colour", "16-bit")


@pytest.mark.parametrize(
    "specimen", [s for s in PNGS if not any(w in s.name for w in PILLOW_DIFFERS)], ids=lambda s: s.name
)
def test_png_pixels_are_those_of_a_second_decoder(specimen: Specimen) -> None:
    height, width, _ = specimen.pixels.shape
    with Image.open(BytesIO(specimen.data)) as image:
        assert np.array_equal(
            decode(specimen.data, contract(height, width)), np.asarray(image.convert("RGB"))
        )


def _orientation_ignored(data: bytes, wanted: InputContract) -> NDArray[np.uint8]:
    with Image.open(BytesIO(data)) as image:
        return decode(saved(image.convert("RGB"), "PNG"), wanted)


def _channels_swapped(data: bytes, wanted: InputContract) -> NDArray[np.uint8]:
    return np.ascontiguousarray(decode(data, wanted)[:, :, ::-1])


def _sixteen_bits_clipped(data: bytes, wanted: InputContract) -> NDArray[np.uint8]:
    with Image.open(BytesIO(data)) as image:
        clipped = np.asarray(image).clip(0, 255).astype(np.uint8)
    return decode(saved(Image.fromarray(clipped), "PNG"), wanted)


def _alpha_dropped(data: bytes, wanted: InputContract) -> NDArray[np.uint8]:
    with Image.open(BytesIO(data)) as image:
        return decode(saved(image.convert("RGBA").convert("RGB"), "PNG"), wanted)


MUTANTS: dict[str, tuple[Decoder, tuple[str, ...]]] = {
    "orientation ignored": (_orientation_ignored, ("png-orientation-", "jpeg-orientation-")),
    "channels swapped": (_channels_swapped, ("png-rgb-filter-0", "jpeg-sampling-0", "bmp-rgb")),
    "16 bits clipped": (_sixteen_bits_clipped, ("png-gray-16-bit", "tiff-gray-16-bit", "tiff-gray-12-bit")),
    "alpha dropped": (
        _alpha_dropped,
        ("png-rgb-alpha", "png-palette-8-bit-alpha", "gif-transparent", "avif-alpha"),
    ),
}


@pytest.mark.parametrize("fault", MUTANTS)
def test_a_decoder_with_a_fault_fails_the_check(fault: str) -> None:
    mutant, names = MUTANTS[fault]
    victims = [s for s in specimens() if s.name.startswith(names) and not s.name.endswith("orientation-1")]
    assert victims
    for victim in victims:
        with pytest.raises(AssertionError):
            check(mutant, victim, "rgb")
