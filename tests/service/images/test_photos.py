"""Real photographs: against a second decoder, damaged by hand, and reduced."""

from __future__ import annotations

import gzip
import random
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageOps

from service.errors import UndecodableImage
from service.images import decode, jpeg, probe
from service.images.geometry import Area, fit, reduction
from tests.service.images.contracts import contract
from tests.service.images.encoders import jpeg_segments, saved

pytestmark = pytest.mark.data


@pytest.fixture(scope="module")
def photos(data_dir: Path) -> list[bytes]:
    """Sixty photographs, 75 x 56 to 2400 x 1600."""
    return [path.read_bytes() for path in sorted((data_dir / "photos").glob("*.JPEG"))]


@pytest.fixture(scope="module")
def small_photos(photos: list[bytes]) -> list[bytes]:
    """Those whose decoding is cheap."""
    return [data for data in photos if len(data) < 40_000]


def test_photos_decode_to_the_pixels_of_a_second_decoder(photos: list[bytes]) -> None:
    for data in photos:
        with Image.open(BytesIO(data)) as image:
            expected = np.asarray(ImageOps.exif_transpose(image).convert("RGB"))
        assert np.array_equal(decode(data, contract(*expected.shape[:2])), expected)


def test_resized_photos_are_pillows(small_photos: list[bytes]) -> None:
    wanted = contract(150, 150, interpolation="nearest")
    for data in small_photos:
        with Image.open(BytesIO(data)) as image:
            expected = np.asarray(image.convert("RGB").resize((150, 150), Image.Resampling.NEAREST))
        assert np.array_equal(decode(data, wanted), expected)


@pytest.mark.parametrize("side", [28, 64, 96, 224])
def test_reduced_photos_are_nearly_the_full_ones(photos: list[bytes], side: int) -> None:
    """The stated pixel difference of the scaled decode: mean at most 1, greatest at most 16 of 255."""
    wanted = contract(side, side)
    reduced = [d for d in photos if reduction(probe(d).width, probe(d).height, wanted) > 1]
    assert reduced
    for data in reduced:
        pixels = jpeg.read(data, gray=False)
        image = Image.fromarray(np.repeat(pixels, 3 // pixels.shape[2], axis=2))
        full = fit(image, Area(*image.size), wanted)
        difference = np.abs(decode(data, wanted).astype(int) - full)
        assert difference.mean() <= 1
        assert difference.max() <= 16


def test_mnist_as_png_comes_back_exactly(data_dir: Path) -> None:
    raw = gzip.decompress((data_dir / "mnist" / "t10k-images-idx3-ubyte.gz").read_bytes())[16:]
    digits = np.frombuffer(raw, dtype=np.uint8).reshape(-1, 28, 28)[:500]
    wanted = contract(28, 28, "gray")
    for digit in digits:
        assert np.array_equal(decode(saved(Image.fromarray(digit), "PNG"), wanted)[:, :, 0], digit)


def _damaged(data: bytes, rng: random.Random) -> bytes:
    start = next(end for marker, _, end in jpeg_segments(data) if marker == 0xDA)
    at = rng.randrange(start, len(data) - 100)
    return rng.choice([data[:at] + rng.randbytes(64) + data[at + 64 :], data[:at] + data[at + 64 :]])


def _accepts(data: bytes) -> bool:
    try:
        jpeg.read(data, gray=False)
    except UndecodableImage:
        return False
    return True


def test_damage_that_libjpeg_notices_is_never_shown(small_photos: list[bytes]) -> None:
    """Of 64 bytes replaced or lost, strict decoding finds what it can; the second chance hides none of it."""
    rng = random.Random(7)
    damaged = [_damaged(data, rng) for data in small_photos for _ in range(20)]
    noticed = 0
    for data in damaged:
        try:
            simplejpeg.decode_jpeg(data, strict=True)
        except ValueError:
            noticed += 1
            assert not _accepts(data)
        else:
            assert _accepts(data)
    assert noticed / len(damaged) > 0.5


def test_a_photo_cut_anywhere_is_refused(small_photos: list[bytes]) -> None:
    rng = random.Random(3)
    for data in small_photos:
        for _ in range(10):
            assert not _accepts(data[: rng.randrange(3, len(data) - 1)])
