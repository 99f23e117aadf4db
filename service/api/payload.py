"""A request body becomes encoded images, in any of three forms.

::

    image/*, application/octet-stream, none  ──▶ the body is the image
    multipart/form-data                      ──▶ each file part is an image
    application/json                         ──▶ {"images": ["<base64 or data URI>", …]}

What is wrong with the body as a whole is raised. What is wrong with one image takes its place, so
that the others still get their prediction.
"""

from __future__ import annotations

import binascii
import re
from typing import TypeAlias, cast

import orjson

from service.api.multipart import boundary_of, file_parts
from service.errors import (
    InvalidInstance,
    MalformedBody,
    RequestError,
    TooManyImages,
    UnsupportedMediaType,
)

Encoded: TypeAlias = bytes | memoryview

# An object costs a thousand times what it takes to write one: a body of nothing else would hold up everybody.
_MOST_OBJECTS = 16
_SPARE_COMMAS = 100
_DATA_URI = re.compile(r"data:[^,]{0,256};base64,", re.IGNORECASE)


def parse_payload(content_type: bytes, body: bytes, max_images: int) -> list[Encoded | RequestError]:
    """The images of one request, in order; at least one.

    Args:
        content_type: As sent; empty where there was none.
        body: The whole body; the images may be views into it.
        max_images: More than this are refused.

    Raises:
        MalformedBody: Empty, without an image, or not what its media type says.
        TooManyImages: More than ``max_images``.
        UnsupportedMediaType: A media type that carries no image.
    """
    if not body:
        raise MalformedBody("the body is empty; send an image, multipart/form-data or JSON")
    media_type = content_type.partition(b";")[0].strip().lower()
    if media_type.startswith(b"image/") or media_type in (b"application/octet-stream", b""):
        return [body]
    if media_type == b"multipart/form-data":
        return _from_form(content_type, body, max_images)
    if media_type == b"application/json":
        return _from_json(body, max_images)
    raise UnsupportedMediaType(
        f"a body of type '{media_type.decode('latin-1')}' carries no image; send image/*, "
        "application/octet-stream, multipart/form-data or application/json"
    )


def _from_form(content_type: bytes, body: bytes, max_images: int) -> list[Encoded | RequestError]:
    images: list[Encoded | RequestError] = []
    for content in file_parts(body, boundary_of(content_type)):
        images.append(content)
        if len(images) > max_images:
            raise _too_many(f"more than {max_images}", max_images)
    if not images:
        raise MalformedBody("the form has no file part; send each image as a part with a file name")
    return images


def _from_json(body: bytes, max_images: int) -> list[Encoded | RequestError]:
    return [decoded_text(text) for text in _image_texts(body, max_images)]


def _image_texts(body: bytes, max_images: int) -> list[str]:
    if body.count(b",") > 2 * max_images + _SPARE_COMMAS:  # one behind each image, and one in a data URI
        raise _too_many(f"more than {max_images}", max_images)
    document = parsed_json(body, _MOST_OBJECTS)
    if not isinstance(document, dict) or "images" not in document:
        raise MalformedBody('the JSON body must be an object with "images"')
    if len(document) > 1:
        extra = next(key for key in document if key != "images")
        raise MalformedBody(f'unknown key "{extra}"; the JSON body has "images" and nothing else')
    texts = document["images"]
    if not isinstance(texts, list) or not texts:
        raise MalformedBody('"images" must be a list of at least one string')
    if len(texts) > max_images:
        raise _too_many(str(len(texts)), max_images)
    for position, text in enumerate(texts):
        if not isinstance(text, str):
            raise MalformedBody(f'"images"[{position}] must be a string of base64 or a data URI')
    return cast("list[str]", texts)


def parsed_json(body: bytes, most_objects: int, length: int | None = None) -> object:
    """A JSON document.

    Args:
        body: Begins with it.
        most_objects: More are refused before they are made.
        length: Of the document; None: the whole body.

    Raises:
        MalformedBody: It is none, or has too many objects.
    """
    if body.count(b"{", 0, length) > most_objects:
        raise MalformedBody(f"the JSON has more than {most_objects} objects")
    try:
        document: object = orjson.loads(body if length is None else memoryview(body)[:length])
    except orjson.JSONDecodeError as exc:
        raise MalformedBody(f"the body is no JSON: {exc}") from exc
    return document


def decoded_text(text: str) -> Encoded | RequestError:
    """The bytes of one base64 string or data URI (RFC 4648 section 4, RFC 2397), or what is wrong with it."""
    start = 0
    if text[:5].lower() == "data:":
        prefix = _DATA_URI.match(text)
        if prefix is None:
            return InvalidInstance("a data URI must have the form data:image/…;base64,…")
        start = prefix.end()
    try:
        return binascii.a2b_base64(text[start:] if start else text, strict_mode=True)
    except ValueError as exc:  # binascii.Error is one; non-ASCII text is another
        return InvalidInstance(f"not base64: {exc}")


def _too_many(count: str, max_images: int) -> TooManyImages:
    return TooManyImages(f"{count} images in one request; at most {max_images} are taken")
