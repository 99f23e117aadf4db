"""The one table from reasons to HTTP statuses, and error bodies after RFC 9457.

Source: RFC 9457 (problem details), RFC 9110 sections 10.2.3 (Retry-After) and 11.6.1 (WWW-Authenticate).
"""

from __future__ import annotations

import math
from types import MappingProxyType
from typing import Final

import orjson

from service.errors import InvalidTensor, Overloaded, RateLimited, Reason, RequestError

PROBLEM_MEDIA_TYPE: Final = b"application/problem+json"

STATUSES: Final = MappingProxyType(
    {
        Reason.MALFORMED_BODY: 400,
        Reason.INVALID_PARAMETER: 400,
        Reason.UNAUTHENTICATED: 401,
        Reason.FORBIDDEN: 403,
        Reason.MODEL_NOT_FOUND: 404,
        Reason.ROUTE_NOT_FOUND: 404,
        Reason.METHOD_NOT_ALLOWED: 405,
        Reason.SLOW_CLIENT: 408,
        Reason.BODY_TOO_LARGE: 413,
        Reason.TOO_MANY_PIXELS: 413,
        Reason.TOO_MANY_IMAGES: 413,
        Reason.UNSUPPORTED_MEDIA_TYPE: 415,
        Reason.INVALID_INSTANCE: 422,
        Reason.UNDECODABLE_IMAGE: 422,
        Reason.RATE_LIMITED: 429,
        Reason.HEADERS_TOO_LARGE: 431,
        Reason.INFERENCE_FAILED: 500,
        Reason.OVERLOADED: 503,
        Reason.NOT_READY: 503,
        Reason.SHUTTING_DOWN: 503,
        Reason.DEADLINE_EXCEEDED: 504,
    }
)

# What counts against the promise to answer.
FAILURES: Final = frozenset(status for status in STATUSES.values() if status >= 500)
# The clients of the inference protocols know 400 alone for what is wrong with a tensor.
_TENSOR_STATUS: Final = 400
# A model that is not ready or on its way out says nothing about when; a second later is worth a try.
_DEFAULT_RETRY_S = 1


def status_of(error: RequestError) -> int:
    """The HTTP status of an error."""
    return _TENSOR_STATUS if isinstance(error, InvalidTensor) else STATUSES[error.reason]


def problem_type(reason: Reason) -> str:
    """The URI that names a kind of problem. It identifies; there is nothing to fetch."""
    return f"urn:foldserve:problem:{reason.value}"


def problem_title(reason: Reason) -> str:
    """``too_many_pixels`` as words."""
    return reason.value.replace("_", " ").capitalize()


def problem_body(error: RequestError, request_id: str) -> bytes:
    """The error as ``application/problem+json``.

    The members of RFC 9457, then ``reason``, ``request_id``, and ``error`` for clients of the
    inference protocols, which look for nothing else.
    """
    reason = error.reason
    return orjson.dumps(
        {
            "type": problem_type(reason),
            "title": problem_title(reason),
            "status": status_of(error),
            "detail": error.detail,
            "instance": f"urn:foldserve:request:{request_id}",
            "reason": reason.value,
            "request_id": request_id,
            "error": error.detail,
        }
    )


def retry_after_s(error: RequestError) -> int | None:
    """``Retry-After``: whole seconds, at least 1; None for errors that waiting does not cure."""
    if isinstance(error, Overloaded | RateLimited):
        return max(1, math.ceil(error.retry_after_s))
    return _DEFAULT_RETRY_S if STATUSES[error.reason] == 503 else None


def problem_response(error: RequestError, request_id: str) -> tuple[int, list[tuple[bytes, bytes]], bytes]:
    """Status, headers and body of the answer to an error."""
    headers = [(b"content-type", PROBLEM_MEDIA_TYPE)]
    seconds = retry_after_s(error)
    if seconds is not None:
        headers.append((b"retry-after", b"%d" % seconds))
    if error.reason is Reason.UNAUTHENTICATED:
        headers.append((b"www-authenticate", b"Bearer"))
    return status_of(error), headers, problem_body(error, request_id)


def instance_problem(error: RequestError) -> dict[str, dict[str, str]]:
    """What stands in the place of one image's prediction."""
    return {"error": {"reason": error.reason.value, "detail": error.detail}}
