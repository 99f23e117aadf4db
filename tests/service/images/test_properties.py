"""Whatever the bytes are, the answer is the contract's pixels or one of three errors."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.artifact import InputContract, Interpolation, Resize
from service.errors import TooManyPixels, UndecodableImage, UnsupportedMediaType
from service.images import DecodeLimits, decode, probe
from tests.service.images.contracts import contract
from tests.service.images.corpus import Specimen, specimens
from tests.service.images.encoders import saved

LIMITS = DecodeLimits(max_pixels=100_000)
MAGICS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",
    b"GIF89a",
    b"RIFF\x00\x01\x00\x00WEBPVP8 ",
    b"BM",
    b"II*\x00",
    b"MM\x00+",
    b"\x00\x00\x00\x20ftypavif",
    b"",
)
ANY = st.sampled_from(specimens())
# Not those of which a part is enough: a TIFF holds anything anywhere, an animation has more frames.
PARTLY = {s.name for s in specimens() if s.format == "tiff" or s.name.endswith("tail")} | {"gif-animated"}
WHOLE = st.sampled_from([s for s in specimens() if s.name not in PARTLY])
BYTE = st.integers(0, 255)


@st.composite
def contracts(draw: st.DrawFn) -> InputContract:
    height, width = draw(st.integers(1, 40)), draw(st.integers(1, 40))
    fields: dict[str, Any] = {"interpolation": draw(st.sampled_from(Interpolation))}
    fields["resize"] = draw(st.sampled_from(Resize))
    if fields["resize"] is Resize.SHORTER_SIDE:
        fields["resize_to"] = max(height, width) + draw(st.integers(0, 9))
    order = draw(st.sampled_from(["rgb", "bgr", "gray"]))
    fields["fill"] = tuple(draw(BYTE) for _ in range(1 if order == "gray" else 3))
    return contract(height, width, order, **fields)


def settle(data: bytes, wanted: InputContract) -> np.ndarray[Any, Any] | None:
    """The pixels, checked; None where the bytes were refused properly."""
    try:
        pixels = decode(data, wanted, LIMITS)
    except (UnsupportedMediaType, UndecodableImage, TooManyPixels):
        return None
    assert pixels.shape == (wanted.height, wanted.width, wanted.channels)
    assert pixels.dtype == np.uint8
    assert pixels.flags.c_contiguous
    return pixels


@given(magic=st.sampled_from(MAGICS), rest=st.binary(max_size=300), wanted=contracts())
def test_any_bytes(magic: bytes, rest: bytes, wanted: InputContract) -> None:
    settle(magic + rest, wanted)


@settings(max_examples=600)
@given(
    specimen=ANY,
    edits=st.lists(st.tuples(st.integers(0, 10**6), BYTE), min_size=1, max_size=6),
    wanted=contracts(),
)
def test_mutated_pictures(specimen: Specimen, edits: list[tuple[int, int]], wanted: InputContract) -> None:
    data = bytearray(specimen.data)
    for position, value in edits:
        data[position % len(data)] = value
    settle(bytes(data), wanted)


@settings(max_examples=300)
@given(specimen=ANY, start=st.integers(0, 10**6), length=st.integers(1, 99), insert=st.binary(max_size=20))
def test_pictures_with_a_piece_replaced(specimen: Specimen, start: int, length: int, insert: bytes) -> None:
    at = start % len(specimen.data)
    settle(specimen.data[:at] + insert + specimen.data[at + length :], contract(9, 7))


@settings(max_examples=400)
@given(specimen=WHOLE, cut=st.integers(1, 10**6))
def test_a_picture_cut_short_is_refused(specimen: Specimen, cut: int) -> None:
    kept = len(specimen.data) - 1 - cut % (len(specimen.data) - 1)
    assert settle(specimen.data[:kept], contract(5, 5)) is None


@given(specimen=ANY, wanted=contracts())
def test_decoding_is_deterministic_and_leaves_its_input_alone(
    specimen: Specimen, wanted: InputContract
) -> None:
    data = bytes(bytearray(specimen.data))
    assert np.array_equal(decode(data, wanted), decode(data, wanted))
    assert data == specimen.data


@given(specimen=ANY)
def test_probing_and_decoding_agree_on_the_limit(specimen: Specimen) -> None:
    pixels = probe(specimen.data).pixels
    below, exact = DecodeLimits(max_pixels=pixels - 1), DecodeLimits(max_pixels=pixels)
    assert decode(specimen.data, contract(3, 3), exact).shape == (3, 3, 3)
    for function in (
        lambda: probe(specimen.data, below),
        lambda: decode(specimen.data, contract(3, 3), below),
    ):
        with pytest.raises(TooManyPixels):
            function()


@given(
    size=st.tuples(st.integers(1, 90), st.integers(1, 90)),
    colour=st.tuples(BYTE, BYTE, BYTE),
    wanted=contracts(),
)
def test_a_solid_colour_stays_solid(
    size: tuple[int, int], colour: tuple[int, int, int], wanted: InputContract
) -> None:
    image = Image.new("RGB", size, colour)
    pixels = settle(saved(image, "PNG"), wanted)
    assert pixels is not None
    shown = {
        "rgb": colour,
        "bgr": colour[::-1],
        "gray": (image.convert("L").getpixel((0, 0)),),
    }[wanted.colour_order.value]
    outside = wanted.fill if wanted.resize is Resize.LETTERBOX else shown
    assert ((pixels == shown).all(axis=2) | (pixels == outside).all(axis=2)).all()
    assert (pixels == shown).all(axis=2).any()


def test_decoding_in_many_threads_gives_the_same_pixels() -> None:
    wanted = contract(20, 30)
    files = [specimen.data for specimen in specimens()] * 3
    alone = [decode(data, wanted).tobytes() for data in files]
    with ThreadPoolExecutor(8) as pool:
        together = [pixels.tobytes() for pixels in pool.map(lambda data: decode(data, wanted), files)]
    assert together == alone
