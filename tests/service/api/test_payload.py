"""A body in any of its forms becomes the same images, or the one error that fits."""

from __future__ import annotations

import base64

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.api.payload import parse_payload
from service.errors import (
    InvalidInstance,
    MalformedBody,
    RequestError,
    TooManyImages,
    UnsupportedMediaType,
)
from tests.service.api.test_multipart import encode

FORM = b"multipart/form-data; boundary=B0undary"
JSON = b"application/json"


def images_of(content_type: bytes, body: bytes, max_images: int = 8) -> list[bytes]:
    parsed = parse_payload(content_type, body, max_images)
    assert not any(isinstance(image, RequestError) for image in parsed)
    return [bytes(image) for image in parsed if not isinstance(image, RequestError)]


def json_body(*texts: object) -> bytes:
    return orjson.dumps({"images": texts})


@given(st.lists(st.binary(min_size=1, max_size=60), min_size=1, max_size=8))
def test_every_form_carries_the_same_bytes(images: list[bytes]) -> None:
    plain = [base64.b64encode(image).decode() for image in images]
    uris = [f"data:image/png;base64,{text}" for text in plain]
    assert images_of(JSON, json_body(*plain)) == images
    assert images_of(JSON + b"; charset=utf-8", json_body(*uris)) == images
    separate = [image for image in images if b"\r\n--B0undary" not in b"\r\n" + image]
    if separate:
        assert images_of(FORM, encode([(b"x", image) for image in separate])) == separate


@pytest.mark.parametrize("content_type", [b"", b"image/png", b"IMAGE/anything", b"application/octet-stream"])
def test_a_raw_body_is_the_image_whatever_it_is_called(content_type: bytes) -> None:
    assert images_of(content_type, b"bytes") == [b"bytes"]


@pytest.mark.parametrize(
    ("content_type", "body", "message"),
    [
        (b"image/png", b"", "empty"),
        (JSON, b"", "empty"),
        (JSON, b"{", "no JSON"),
        (JSON, b"\xff", "no JSON"),
        (JSON, b"[]", "must be an object"),
        (JSON, b'{"image": "x"}', "must be an object"),
        (JSON, b'{"images": "x"}', "at least one string"),
        (JSON, b'{"images": []}', "at least one string"),
        (JSON, b'{"images": ["x", 1]}', r'"images"\[1\]'),
        (JSON, b'{"images": ["x"], "top_k": 3}', 'unknown key "top_k"'),
        (FORM, encode([(None, b"x")]), "no file part"),
        (FORM, encode([(b"", b"")]), "no file part"),
        (b"multipart/form-data", encode([(b"a", b"x")]), "boundary"),
    ],
)
def test_a_malformed_body_is_refused_as_a_whole(content_type: bytes, body: bytes, message: str) -> None:
    with pytest.raises(MalformedBody, match=message):
        parse_payload(content_type, body, 8)


@pytest.mark.parametrize(
    "text", ["!!", "YQ", "YQ=", "Y Q==", "YQ==YQ==", "é", "data:image/png,abc", "data:;base64", "data:"]
)
def test_bad_base64_takes_the_place_of_its_image(text: str) -> None:
    first, second = parse_payload(JSON, json_body("YQ==", text), 8)
    assert first == b"a"
    assert isinstance(second, InvalidInstance)


@pytest.mark.parametrize(
    ("content_type", "body"),
    [(JSON, json_body("YQ==", "YQ==", "YQ==")), (FORM, encode([(b"a", b"x")] * 3))],
)
def test_too_many_images_are_refused(content_type: bytes, body: bytes) -> None:
    assert len(parse_payload(content_type, body, 3)) == 3
    with pytest.raises(TooManyImages, match="at most 2"):
        parse_payload(content_type, body, 2)


@pytest.mark.parametrize(
    "content_type", [b"text/plain", b"application/x-www-form-urlencoded", b"application/xml"]
)
def test_other_media_types_are_refused(content_type: bytes) -> None:
    with pytest.raises(UnsupportedMediaType, match="carries no image"):
        parse_payload(content_type, b"x", 8)
