"""One picture for each reason to refuse one, and the answer it gets."""

from __future__ import annotations

import struct
import subprocess
import sys
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
from PIL import Image

from service.errors import RequestError, TooManyPixels, UndecodableImage, UnsupportedMediaType
from service.images import FORMATS, DecodeLimits, decode, gif, is_quick, plugins, probe
from tests.service.images import encoders
from tests.service.images.contracts import contract
from tests.service.images.corpus import Specimen, colours, specimens
from tests.service.images.damage import BY_NAME, GIF, Damage, damaged
from tests.service.images.encoders import PNG_MAGIC, chunk, png, saved

SMALL = contract(8, 8)


def refused(data: bytes, error: type[RequestError], detail: str) -> None:
    with pytest.raises(error) as caught:
        decode(data, SMALL)
    assert type(caught.value) is error
    assert detail in caught.value.detail


@pytest.mark.parametrize("damage", damaged(), ids=lambda damage: damage.name)
def test_damage_is_refused_and_named(damage: Damage) -> None:
    refused(damage.data, UndecodableImage, damage.detail)


PNGS = [s for s in specimens() if s.format == "png" and s.name not in ("png-animated", "png-rgb-tiny-chunks")]


@pytest.mark.parametrize("specimen", PNGS, ids=lambda specimen: specimen.name)
def test_a_png_without_its_last_row_is_refused(specimen: Specimen) -> None:
    """Its checksums are right and its compressed data is complete: only the rows can be counted."""
    data = specimen.data
    start = data.index(b"IDAT") - 4
    end = start + 12 + int.from_bytes(data[start : start + 4])
    rows = zlib.decompress(data[start + 8 : end - 4])
    height = int.from_bytes(data[20:24])
    for missing in (1, len(rows) // height):
        short = chunk(b"IDAT", zlib.compress(rows[:-missing]))
        refused(data[:start] + short + data[end:], UndecodableImage, "corrupt pixels: ")


@pytest.mark.parametrize("name", sorted(FORMATS))
def test_a_format_that_is_switched_off_is_refused_by_name(name: str) -> None:
    data = next(specimen.data for specimen in specimens() if specimen.format == name)
    limits = DecodeLimits(formats=FORMATS - {name})
    with pytest.raises(UnsupportedMediaType, match=f"{name.upper()} images are switched off; accepted: "):
        decode(data, SMALL, limits)


@pytest.mark.parametrize(
    ("data", "name"),
    [
        (b"\x00\x00\x00\x18ftypheic" + bytes(16), "HEIC"),
        (b"\x00\x00\x00\x0cJXL \r\n\x87\n" + bytes(9), "JPEG XL"),
        (b"\xff\x0a" + bytes(9), "JPEG XL"),
        (b"\x00\x00\x00\x0cjP  \r\n\x87\n" + bytes(9), "JPEG 2000"),
        (saved(Image.new("L", (16, 16)), "ICO"), "ICO"),
        (b"8BPS\x00\x01" + bytes(20), "Photoshop"),
    ],
)
def test_a_foreign_format_is_refused_by_name(data: bytes, name: str) -> None:
    refused(data, UnsupportedMediaType, f"{name} images are not read; accepted: avif, bmp, gif, jpeg")


def _enlarged(specimen: Specimen) -> bytes:
    """The same file whose header announces at least 30,000 x 30,000 pixels."""
    data, huge = specimen.data, 30_000
    if specimen.format == "png":
        return data[:8] + chunk(b"IHDR", struct.pack(">II", huge, huge) + data[24:29]) + data[33:]
    if specimen.format == "jpeg":
        frame = data.index(b"\xff\xc0")
        return data[: frame + 5] + struct.pack(">HH", huge, huge) + data[frame + 9 :]
    if specimen.format == "gif":
        return data[:6] + struct.pack("<HH", huge, huge) + data[10:]
    if specimen.format == "bmp":
        return data[:18] + struct.pack("<ii", huge, huge) + data[26:]
    if specimen.format == "webp":
        return data[:12] + b"VP8X" + bytes(8) + b"\xff\xff\x00" * 2 + data[30:]
    if specimen.format == "tiff":
        wide = struct.pack("<HHII", 256, 4, 1, huge), struct.pack("<HHII", 257, 4, 1, huge)
        return data.replace(struct.pack("<HHII", 256, 4, 1, 18), wide[0]).replace(
            struct.pack("<HHII", 257, 4, 1, 13), wide[1]
        )
    at = data.index(b"ispe") + 8
    return data[:at] + struct.pack(">II", 10_000, 10_000) + data[at + 8 :]


BOMBS = [
    next(s for s in specimens() if s.name == name)
    for name in (
        "png-gray-filter-0",
        "jpeg-sampling-0",
        "gif-palette",
        "bmp-rgb",
        "webp-lossless",
        "tiff-gray-16-bit",
        "avif",
    )
]


@pytest.mark.parametrize("bomb", BOMBS, ids=lambda specimen: specimen.format)
def test_a_bomb_is_refused_from_its_header(bomb: Specimen) -> None:
    refused(_enlarged(bomb), TooManyPixels, "at most 50000000 are accepted")


def test_a_first_gif_frame_larger_than_its_screen_counts() -> None:
    frame = GIF.index(b",\x00\x00")
    data = GIF[: frame + 5] + struct.pack("<HH", 60_000, 60_000) + GIF[frame + 9 :]
    refused(data, TooManyPixels, "60000x60000")


def test_a_bomb_costs_no_memory() -> None:
    rows = zlib.compress(bytes(12_001) * 12_000, 9)
    header = struct.pack(">IIBBBBB", 12_000, 12_000, 8, 0, 0, 0, 0)
    bomb = PNG_MAGIC + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND")
    assert len(bomb) < 200_000
    process = psutil.Process()
    before = process.memory_info().rss
    for _ in range(10):
        refused(bomb, TooManyPixels, "12000x12000 is 144000000 pixels")
    assert process.memory_info().rss - before < 8 * 2**20


@pytest.mark.parametrize("bomb", BOMBS[2:], ids=lambda specimen: specimen.format)
def test_what_the_plugin_finds_larger_than_the_limit_saw_is_not_decoded(
    bomb: Specimen, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Should the two ever read one header differently, as they did for a TIFF with two heights."""
    monkeypatch.setitem(plugins.SIZES, bomb.format, lambda _: (1, 1))
    if bomb.format == "gif":
        first_frame = gif.first_frame
        monkeypatch.setattr(gif, "first_frame", lambda data: first_frame(data)._replace(size=(1, 1)))
        monkeypatch.setattr(gif, "alone", lambda data, _: data)
    with pytest.raises(UndecodableImage, match="a header of 1x1 and of"):
        plugins.read(bomb.format, bomb.data)


def test_a_thread_thin_picture_costs_no_memory() -> None:
    thin = saved(Image.new("RGB", (40_000, 1), (9, 9, 9)), "PNG")
    process = psutil.Process()
    before = process.memory_info().rss
    pixels = decode(thin, contract(224, 224, resize="shorter_side", resize_to=256))
    assert (pixels == 9).all()
    assert process.memory_info().rss - before < 32 * 2**20


def test_only_few_pixels_in_few_bytes_are_quick() -> None:
    assert is_quick(png(np.zeros((128, 128, 1), int), 8, 0))
    assert not is_quick(png(np.zeros((128, 129, 1), int), 8, 0))
    assert not is_quick(png(np.zeros((8, 8, 1), int), 8, 0, before=chunk(b"tEXt", bytes(128 * 1024))))


def test_the_limit_itself_is_accepted_and_one_pixel_more_is_not() -> None:
    data = png(colours(4, 5), 8, 2)
    assert probe(data, DecodeLimits(max_pixels=20)).pixels == 20
    with pytest.raises(TooManyPixels, match="5x4 is 20 pixels; at most 19 are accepted"):
        probe(data, DecodeLimits(max_pixels=19))


def test_a_gif_of_ten_thousand_frames_costs_one() -> None:
    still = BY_NAME["gif-palette"]
    frame = still[still.index(b",\x00\x00") : -1]
    animation = still[:-1] + frame * 10_000 + b";"
    wanted = contract(13, 18)
    assert np.array_equal(decode(animation, wanted), decode(still, wanted))


_READ_ALL = """
import pathlib, sys
from service.errors import UndecodableImage
from service.images import plugins
for path in pathlib.Path(sys.argv[1]).iterdir():
    try:
        plugins.read("tiff", path.read_bytes())
    except UndecodableImage:
        pass
"""


def _noisy_tiffs() -> Iterator[bytes]:
    """TIFFs about which Python warns, Pillow logs, or libtiff writes to stderr."""
    plain = encoders.tiff(bytes(64), 8, 8, 8, 1)
    samples = struct.pack("<HHII", 277, 3, 1, 1)
    yield plain.replace(samples, struct.pack("<HHIHH", 277, 3, 2, 1, 1))
    yield plain.replace(samples, struct.pack("<HHII", 277, 3, 1, 60_000))
    for compression in ("tiff_lzw", "tiff_adobe_deflate", "packbits"):
        data = saved(Image.fromarray(colours(64, 64)), "TIFF", compression=compression)
        yield data[:20] + b"\xff" * 40 + data[60:]
        yield data.replace(struct.pack("<HHI", 273, 4, 1), struct.pack("<HHI", 26598, 4, 1))


def test_hostile_tiffs_leave_no_trace_in_the_log(tmp_path: Path) -> None:
    for number, data in enumerate(_noisy_tiffs()):
        (tmp_path / f"{number}.tiff").write_bytes(data)
    ended = subprocess.run(  # noqa: S603 - our own interpreter
        [sys.executable, "-W", "default", "-c", _READ_ALL, str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert (ended.returncode, ended.stdout, ended.stderr) == (0, "", "")
