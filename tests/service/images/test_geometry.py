"""Sizes: against Pillow's and torchvision's own steps, and the promises of the scaled JPEG decode."""

from __future__ import annotations

from io import BytesIO

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from service.artifact import InputContract, Interpolation
from service.images import decode
from service.images.geometry import reduction
from tests.service.images.contracts import contract
from tests.service.images.corpus import Pixels, colours, turned
from tests.service.images.encoders import exif, png, saved

SIDES = st.integers(1, 120)
INTERPOLATIONS = st.sampled_from([("nearest", 0), ("bilinear", 2), ("bicubic", 3), ("lanczos", 1)])


def noise(height: int, width: int) -> Pixels:
    return np.random.default_rng(height * 1000 + width).integers(0, 256, (height, width, 3), dtype=np.uint8)


@given(source=st.tuples(SIDES, SIDES), target=st.tuples(SIDES, SIDES), interpolation=INTERPOLATIONS)
def test_stretch_is_one_antialiased_resize(
    source: tuple[int, int], target: tuple[int, int], interpolation: tuple[str, int]
) -> None:
    picture = noise(*source)
    pixels = decode(png(picture, 8, 2), contract(*target, interpolation=interpolation[0]))
    expected = Image.fromarray(picture).resize(target[::-1], Image.Resampling(interpolation[1]))
    assert np.array_equal(pixels, np.asarray(expected))


def _torchvision(picture: Pixels, shorter: int, height: int, width: int, filter_: int) -> Pixels:
    """``Resize(shorter)`` and ``CenterCrop((height, width))``, step by step."""
    image = Image.fromarray(picture)
    old_width, old_height = image.size
    long = int(shorter * max(image.size) / min(image.size))
    size = (shorter, long) if old_width <= old_height else (long, shorter)
    image = image.resize(size, Image.Resampling(filter_))
    top, left = round((size[1] - height) / 2.0), round((size[0] - width) / 2.0)
    return np.asarray(image.crop((left, top, left + width, top + height)))


@given(
    source=st.tuples(st.integers(2, 120), st.integers(2, 120)),
    target=st.tuples(st.integers(1, 60), st.integers(1, 60)),
    margin=st.integers(0, 20),
    interpolation=st.sampled_from([("bilinear", 2), ("bicubic", 3)]),
)
def test_shorter_side_and_crop_is_torchvisions(
    source: tuple[int, int], target: tuple[int, int], margin: int, interpolation: tuple[str, int]
) -> None:
    # Mid-tones: for a crop Pillow may take its two passes in the other order, and overshoot clips.
    picture, shorter = 64 + noise(*source) // 2, max(target) + margin
    wanted = contract(*target, resize="shorter_side", resize_to=shorter, interpolation=interpolation[0])
    pixels = decode(png(picture, 8, 2), wanted).astype(int)
    assert np.abs(pixels - _torchvision(picture, shorter, *target, interpolation[1])).max() <= 2


@given(source=st.tuples(SIDES, SIDES), target=st.tuples(SIDES, SIDES))
def test_letterbox_keeps_the_shape_and_fills_the_rest(
    source: tuple[int, int], target: tuple[int, int]
) -> None:
    picture = np.minimum(noise(*source), 199)
    pixels = decode(png(picture, 8, 2), contract(*target, resize="letterbox", fill=(200, 210, 220)))
    is_inside = ~(pixels == (200, 210, 220)).all(axis=2)
    rows, columns = np.flatnonzero(is_inside.any(axis=1)), np.flatnonzero(is_inside.any(axis=0))
    height, width = len(rows), len(columns)
    assert is_inside.sum() == height * width
    assert height == target[0] or width == target[1]
    scale = min(target[0] / source[0], target[1] / source[1])
    assert height == max(1, round(source[0] * scale))
    assert width == max(1, round(source[1] * scale))
    assert abs((rows[0]) - (target[0] - 1 - rows[-1])) <= 1
    assert abs((columns[0]) - (target[1] - 1 - columns[-1])) <= 1
    inside = Image.fromarray(picture).resize((width, height), Image.Resampling.BILINEAR)
    assert np.array_equal(pixels[is_inside], np.asarray(inside).reshape(-1, 3))


def test_letterbox_of_the_wanted_shape_has_no_frame() -> None:
    pixels = decode(png(noise(10, 20), 8, 2), contract(20, 40, resize="letterbox", fill=(1, 2, 3)))
    assert not (pixels == (1, 2, 3)).all(axis=2).any()


@pytest.mark.parametrize("rule", ["stretch", "shorter_side", "letterbox"])
@given(source=st.tuples(SIDES, SIDES), orientation=st.integers(1, 8))
def test_a_turned_picture_is_fitted_after_it_stands_upright(
    rule: str, source: tuple[int, int], orientation: int
) -> None:
    picture = noise(*source)
    wanted = contract(24, 32, resize=rule, resize_to=40 if rule == "shorter_side" else None)
    stored = Image.fromarray(turned(picture, orientation))
    data = saved(stored, "PNG", exif=exif(orientation))
    assert np.array_equal(decode(data, wanted), decode(png(picture, 8, 2), wanted))


@given(
    size=st.tuples(st.integers(1, 3000), st.integers(1, 3000)), rule=st.sampled_from(["stretch", "letterbox"])
)
def test_a_reduced_decode_leaves_twice_the_final_size(size: tuple[int, int], rule: str) -> None:
    width, height = size
    factor = reduction(width, height, contract(56, 40, resize=rule))
    assert factor in (1, 2, 4, 8)
    scale = min(40 / width, 56 / height)
    final = (40, 56) if rule == "stretch" else (round(width * scale), round(height * scale))
    if factor > 1:
        assert width / factor >= 2 * final[0]
        assert height / factor >= 2 * final[1]
    if factor < 8:
        assert width / (factor * 2) < 2 * max(1, final[0]) or height / (factor * 2) < 2 * max(1, final[1])


def test_nearest_is_never_reduced() -> None:
    assert reduction(8000, 8000, contract(8, 8, interpolation=Interpolation.NEAREST)) == 1


def _full_and_reduced(picture: Pixels, orientation: int, wanted: InputContract) -> tuple[Pixels, Pixels]:
    """What a JPEG becomes by the full decode and by the reduced one."""
    stored = Image.fromarray(turned(picture, orientation))
    data = saved(stored, "JPEG", quality=92, exif=exif(orientation))
    with Image.open(BytesIO(data)) as image:
        full = saved(image, "PNG", exif=exif(orientation))
    height, width, _ = picture.shape
    assert reduction(width, height, wanted) > 1
    return decode(full, wanted), decode(data, wanted)


@settings(max_examples=60)
@given(
    size=st.tuples(st.integers(200, 500), st.integers(200, 500)),
    rule=st.sampled_from(["stretch", "shorter_side", "letterbox"]),
    order=st.sampled_from(["rgb", "bgr", "gray"]),
    orientation=st.integers(1, 8),
)
def test_a_reduced_jpeg_is_nearly_the_full_one(
    size: tuple[int, int], rule: str, order: str, orientation: int
) -> None:
    wanted = contract(24, 24, order, resize=rule, resize_to=28 if rule == "shorter_side" else None)
    full, reduced = _full_and_reduced(colours(*size), orientation, wanted)
    difference = np.abs(full.astype(int) - reduced)
    assert difference.max() <= 4
    assert difference.mean() <= 0.7


def test_a_reduced_jpeg_begins_and_ends_where_the_full_one_does() -> None:
    """A picture with a sharp edge near each border, at sizes that 8 does not divide, turned all ways."""
    picture = np.full((201, 263, 3), 30, np.uint8)
    picture[24:-24, 24:-24] = 220
    for orientation in range(1, 9):
        full, reduced = _full_and_reduced(picture, orientation, contract(12, 12))
        assert np.abs(full.astype(int) - reduced).max() <= 4
