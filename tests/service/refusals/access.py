"""Keys that are none, keys for something else, and what only an operator may do."""

from __future__ import annotations

from collections.abc import Iterator

from tests.service.refusals.attempt import (
    FORBIDDEN,
    IMAGE,
    MALFORMED,
    NO_MODEL,
    OK,
    PARAMETER,
    UNKNOWN_KEY,
    Attempt,
    head,
    post,
    post_json,
)

# Of the service that these are sent to: secret → scopes.
KEYS = {"p" * 43: "predict", "m" * 43: "metrics", "a" * 43: "admin"}
PREDICT, METRICS, ADMIN = (f"Authorization: Bearer {secret}" for secret in KEYS)
LOAD = "/v2/repository/models/tiny/load"
UNLOAD = "/v2/repository/models/tiny/unload"


def keys() -> Iterator[Attempt]:
    """What is sent in the place of a key."""
    for name, header in {
        "no key": "X-Nothing: y",
        "an unknown key": "Authorization: Bearer nobody",
        "an empty key": "Authorization: Bearer ",
        "an empty X-API-Key": "X-API-Key: ",
        "a key without its scheme": f"Authorization: {'p' * 43}",
        "a key under another scheme": f"Authorization: Basic {'p' * 43}",
        "a key that is one letter short": f"Authorization: Bearer {'p' * 42}",
        "a key that is one letter long": f"Authorization: Bearer {'p' * 44}",
        "a key in capitals": f"Authorization: Bearer {'P' * 43}",
        "a key of 3,000 letters": f"Authorization: Bearer {'p' * 3000}",
        "a key beyond ASCII": "Authorization: Bearer \xff\xfe",
        "two keys in one": f"Authorization: Bearer {'p' * 43},{'a' * 43}",
        "a key as a cookie": f"Cookie: api_key={'p' * 43}",
    }.items():
        yield Attempt(name, post("/predict", IMAGE, header), UNKNOWN_KEY)
    yield Attempt("a key in the query", post(f"/predict?key={'p' * 43}", IMAGE), UNKNOWN_KEY)
    yield Attempt("no key for tensors", post_json("/v2/models/tiny/infer", {}), UNKNOWN_KEY)
    yield Attempt("no key for rows", post_json("/v1/models/tiny:predict", {}), UNKNOWN_KEY)
    yield Attempt("no key for metrics", head("GET /metrics"), UNKNOWN_KEY)
    yield Attempt("no key for an operator's route", post(LOAD, b""), UNKNOWN_KEY)
    yield Attempt("a key for metrics at /predict", post("/predict", IMAGE, METRICS), FORBIDDEN)
    yield Attempt("an operator's key at /predict", post("/predict", IMAGE, ADMIN), FORBIDDEN)
    yield Attempt("a key for predictions at /metrics", head("GET /metrics", PREDICT), FORBIDDEN)
    yield Attempt("a key for predictions at load", post(LOAD, b"", PREDICT), FORBIDDEN)
    yield Attempt("a key for metrics at unload", post(UNLOAD, b"", METRICS), FORBIDDEN)
    yield Attempt(
        "a key for predictions at a rollback", post("/models/tiny/rollback", b"", PREDICT), FORBIDDEN
    )
    yield Attempt(
        "the scheme in another case", post("/predict", IMAGE, PREDICT.replace("Bearer", "bEARER")), OK
    )


def operations() -> Iterator[Attempt]:
    """An operator's mistakes."""
    yield Attempt("load an unknown model", post(LOAD.replace("tiny", "nothing"), b"", ADMIN), NO_MODEL)
    yield Attempt("unload an unknown model", post(UNLOAD.replace("tiny", "nothing"), b"", ADMIN), NO_MODEL)
    yield Attempt("load with another file", post_json_as(LOAD, b'{"parameters": {"file:x": "y"}}'), PARAMETER)
    yield Attempt("load with no JSON", post_json_as(LOAD, b"{"), MALFORMED)
    rollback = "/models/tiny/rollback"
    yield Attempt("roll back with nothing to go back to", post(rollback, b"", ADMIN), PARAMETER)
    yield Attempt("roll back to an unknown version", post(f"{rollback}?to=7", b"", ADMIN), NO_MODEL)
    yield Attempt("roll back to nonsense", post(f"{rollback}?to=..", b"", ADMIN), NO_MODEL)
    serving = "/models/tiny/serving"
    for name, document in {
        "a plan of a list": b"[]",
        "a plan with an unknown key": b'{"versoin": "1"}',
        "a plan for an unknown version": b'{"version": "7"}',
        "a plan with a version that is a number": b'{"version": 1}',
        "an alias to an unknown version": b'{"aliases": {"stable": "7"}}',
        "an alias that looks like a version": b'{"aliases": {"7": "1"}}',
        "a canary of 101 %": b'{"canary": {"version": "1", "percent": 101}}',
        "a shadow of an unknown version": b'{"shadow": "7"}',
    }.items():
        yield Attempt(name, post_json_as(serving, document, "PUT"), PARAMETER)
    yield Attempt("a plan that is no JSON", post_json_as(serving, b"{", "PUT"), MALFORMED)


def post_json_as(path: str, body: bytes, method: str = "POST") -> bytes:
    """A document, with the operator's key."""
    lines = ("Content-Type: application/json", f"Content-Length: {len(body)}", ADMIN)
    return head(f"{method} {path}", *lines) + body
