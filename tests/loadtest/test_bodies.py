"""The bodies carry the pictures they say they carry, whatever parser reads them."""

from __future__ import annotations

import base64
import io
import json
from collections import Counter
from email import message_from_bytes
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from loadtest import bodies, pictures
from loadtest.pictures import Picture

binary = st.binary(min_size=1, max_size=200)


@given(st.lists(binary, min_size=1, max_size=5))
def test_multipart_comes_back_from_another_parser(contents: list[bytes]) -> None:
    body = bodies.encode("multipart", [Picture(content, "image/png", None) for content in contents])
    message = message_from_bytes(f"Content-Type: {body.content_type}\r\n\r\n".encode() + body.content)
    parts = message.get_payload()
    assert isinstance(parts, list)
    assert [part.get_content_type() for part in parts] == ["image/png"] * len(contents)  # type: ignore[union-attr]
    assert body.content.count(b"filename=") >= len(contents)
    for content in contents:
        assert b"\r\n\r\n" + content + b"\r\n--" in body.content


@given(st.lists(binary, min_size=1, max_size=5))
def test_json_comes_back(contents: list[bytes]) -> None:
    body = bodies.encode("json", [Picture(content, "image/png", "3") for content in contents])
    assert [base64.b64decode(text) for text in json.loads(body.content)["images"]] == contents
    assert body.labels == ("3",) * len(contents)


def test_raw_is_the_picture_and_takes_no_second_one() -> None:
    picture = Picture(b"bytes", "image/webp", None)
    assert bodies.encode("raw", [picture]) == bodies.Body("raw", b"bytes", "image/webp", (None,))
    with pytest.raises(ValueError, match="too many"):
        bodies.encode("raw", [picture, picture])


def test_the_mix_is_seeded_and_keeps_its_proportions() -> None:
    digits = pictures.digits()
    mixed = bodies.mixed(digits, 500, seed=1)
    assert mixed == bodies.mixed(digits, 500, seed=1)
    assert mixed != bodies.mixed(digits, 500, seed=2)
    counts = Counter(body.form for body in mixed)
    for form, weight in bodies.MIX.items():
        assert abs(counts[form] / 500 - weight / 10) < 0.07


def test_sizes_and_models_come_up_alike_and_one_size_a_body() -> None:
    sized = pictures.in_sizes(pictures.digits(), seed=1)
    mixed = bodies.mixed(sized, 400, seed=1, models=("a", "b"))
    counts = Counter((body.size, body.model) for body in mixed)
    assert len(counts) == 2 * len(pictures.SIDES)
    assert min(counts.values()) > 400 / len(counts) / 2
    assert {body.path for body in mixed} == {"/predict?model=a", "/predict?model=b"}
    for body in mixed:
        if body.form == "raw":
            with Image.open(io.BytesIO(body.content)) as image:
                assert f"{max(image.size)} px" == body.size


def test_a_resized_picture_keeps_its_shape_and_its_format() -> None:
    buffer = io.BytesIO()
    Image.new("RGB", (300, 100)).save(buffer, "JPEG")
    for picture in pictures.in_sizes([Picture(buffer.getvalue(), "image/jpeg", "x")], seed=0):
        with Image.open(io.BytesIO(picture.data)) as image:
            assert image.format == "JPEG"
            assert image.width / image.height == pytest.approx(3, rel=0.1)
            assert (picture.size, picture.label) == (f"{image.width} px", "x")


def test_digits_are_readable_pictures_of_every_label() -> None:
    digits = pictures.load(None)
    assert {picture.label for picture in digits} == set("0123456789")
    with Image.open(io.BytesIO(digits[0].data)) as image:
        assert (image.format, image.mode, image.size) == ("PNG", "L", (8, 8))


def test_a_folder_gives_its_pictures_and_nothing_else(tmp_path: Path) -> None:
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / "a.JPG").write_bytes(b"jpeg")
    (tmp_path / "b.png").write_bytes(b"png")
    (tmp_path / "notes.txt").write_text("no picture")
    assert pictures.load(tmp_path) == (
        Picture(b"png", "image/png", None),
        Picture(b"jpeg", "image/jpeg", None),
    )


def test_a_folder_without_pictures_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(pictures.NoPictures, match=str(tmp_path)):
        pictures.load(tmp_path)
