"""One request as bytes, and the answer that is stated for it."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import NamedTuple

from service.errors import Reason
from tests.model_files import TinyModel, png

PIXELS = TinyModel.make().image(1)
IMAGE = png(PIXELS)


class Stated(NamedTuple):
    """What an answer must be. Without a reason it is no refusal."""

    status: int
    reason: Reason | None


OK = Stated(200, None)
MALFORMED = Stated(400, Reason.MALFORMED_BODY)
PARAMETER = Stated(400, Reason.INVALID_PARAMETER)
TENSOR = Stated(400, Reason.INVALID_INSTANCE)
UNKNOWN_KEY = Stated(401, Reason.UNAUTHENTICATED)
FORBIDDEN = Stated(403, Reason.FORBIDDEN)
NO_MODEL = Stated(404, Reason.MODEL_NOT_FOUND)
NO_ROUTE = Stated(404, Reason.ROUTE_NOT_FOUND)
METHOD = Stated(405, Reason.METHOD_NOT_ALLOWED)
TOO_LARGE = Stated(413, Reason.BODY_TOO_LARGE)
TOO_MANY = Stated(413, Reason.TOO_MANY_IMAGES)
TOO_MANY_PIXELS = Stated(413, Reason.TOO_MANY_PIXELS)
UNSUPPORTED = Stated(415, Reason.UNSUPPORTED_MEDIA_TYPE)
INSTANCE = Stated(422, Reason.INVALID_INSTANCE)
UNDECODABLE = Stated(422, Reason.UNDECODABLE_IMAGE)
HEADERS = Stated(431, Reason.HEADERS_TOO_LARGE)


@dataclass(frozen=True)
class Attempt:
    """One of them.

    Attributes:
        name: What is odd about it.
        data: As it goes over the wire.
        stated: Its answer.
    """

    name: str
    data: bytes
    stated: Stated


def head(line: str, *headers: str) -> bytes:
    """A request without a body."""
    return "\r\n".join([f"{line} HTTP/1.1", "Host: x", *headers, "", ""]).encode("latin-1")


def post(path: str, body: bytes, *headers: str) -> bytes:
    """A POST with its length."""
    return head(f"POST {path}", *headers, f"Content-Length: {len(body)}") + body


def post_json(path: str, document: object) -> bytes:
    """A POST of a document; bytes and texts as they stand."""
    if isinstance(document, str):
        document = document.encode()
    body = document if isinstance(document, bytes) else json.dumps(document).encode()
    return post(path, body, "Content-Type: application/json")
