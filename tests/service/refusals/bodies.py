"""Forms and JSON documents of ``/predict``."""

from __future__ import annotations

import base64
from collections.abc import Iterator

from tests.service.refusals.attempt import (
    IMAGE,
    INSTANCE,
    MALFORMED,
    OK,
    TOO_MANY,
    UNDECODABLE,
    Attempt,
    post,
    post_json,
)

TEXT = base64.b64encode(IMAGE).decode()


def form(*parts: bytes, boundary: str = "b", line: bytes = b"--b\r\n", end: bytes = b"--b--\r\n") -> bytes:
    """A form as bytes; ``boundary`` is what the header says, ``line`` what stands before each part."""
    body = b"".join(line + part + b"\r\n" for part in parts) + end
    return post("/predict", body, f"Content-Type: multipart/form-data; boundary={boundary}")


def part(content: bytes = IMAGE, disposition: bytes = b'form-data; name="i"; filename="x"') -> bytes:
    """One part of it."""
    return b"Content-Disposition: " + disposition + b"\r\n\r\n" + content


def forms() -> Iterator[Attempt]:
    """Forms."""
    one = part()
    for name, data in {
        "no boundary in the header": post("/predict", IMAGE, "Content-Type: multipart/form-data"),
        "an empty boundary": form(one, boundary=""),
        "a boundary of 71 characters": form(one, boundary="b" * 71),
        "a boundary that no form may have": form(one, boundary='"b\\"'),
        "a boundary that ends in a blank": form(one, boundary='"b "'),
        "another boundary than the header's": form(one, boundary="c"),
        "a body that is no form": post("/predict", IMAGE, "Content-Type: multipart/form-data; boundary=b"),
        "no end": form(one, end=b""),
        "half an end": form(one, end=b"--b"),
        "no part": form(),
        "only fields, no file": form(part(b"x", b'form-data; name="a"')),
        "a file that was not chosen": form(part(b"", b'form-data; name="a"; filename=""')),
        "a part without headers": form(b"\r\n" + IMAGE),
        "a part without an end of its headers": form(b"Content-Disposition: form-data"),
        "a part without Content-Disposition": form(b"Content-Type: image/png\r\n\r\n" + IMAGE),
        "a part with headers of 9,000 bytes": form(b"X: " + b"y" * 9000 + b"\r\n" + one),
        "something behind a boundary": form(one, line=b"--bx\r\n"),
        "line feeds alone": form(one, line=b"--b\n"),
        "a file name in another parameter's quotes": form(part(IMAGE, b'form-data; name="; filename=x"')),
    }.items():
        yield Attempt(name, data, MALFORMED)
    fields = form(one, *[part(b"x", b'form-data; name="a"')] * 101)
    yield Attempt("101 fields beside a file", fields, MALFORMED)
    yield Attempt("5 files, 4 are allowed", form(*[one] * 5), TOO_MANY)
    yield Attempt("a file that is no picture", form(part(b"text")), UNDECODABLE)
    yield Attempt("an empty file with a name", form(part(b"")), UNDECODABLE)
    yield Attempt(
        "a file name with a path", form(part(IMAGE, b'form-data; name="i"; filename="../../x"')), OK
    )
    yield Attempt("an escaped quote in a name", form(part(IMAGE, rb'form-data; name="\""; filename="x"')), OK)
    yield Attempt("a preamble and an epilogue", form(one, line=b"hello\r\n--b\r\n", end=b"--b--\r\nbye"), OK)


def documents() -> Iterator[Attempt]:
    """JSON."""
    no_documents: dict[str, object] = {
        "no JSON": "{",
        "bytes that are no UTF-8": b'{"images": ["\xff"]}',
        "UTF-16": '{"images": []}'.encode("utf-16"),
        "a byte order mark": b"\xef\xbb\xbf" + b'{"images": ["YQ=="]}',
        "half a surrogate": '{"images": ["\\ud800"]}',
        "NaN": '{"images": [NaN]}',
        "a comment": '{"images": [] /* none */}',
        "a comma too many": '{"images": ["YQ==",]}',
        "two documents": '{"images": []}{"images": []}',
        "single quotes": "{'images': []}",
        "5,000 brackets": "[" * 5000 + "]" * 5000,
        "5,000 brackets as images": '{"images": ' + "[" * 5000 + "]" * 5000 + "}",
        "null": None,
        "a number": 7,
        "a text": "images",
        "a list": [TEXT],
        "an empty object": {},
        "another key": {"image": TEXT},
        "a key in capitals": {"Images": [TEXT]},
        "one key too many": {"images": [TEXT], "top_k": 1},
        "a text for a list": {"images": TEXT},
        "an object for a list": {"images": {"0": TEXT}},
        "null for a list": {"images": None},
        "no image": {"images": []},
        "null as an image": {"images": [None]},
        "a number as an image": {"images": [1]},
        "a list as an image": {"images": [[TEXT]]},
        "an object as an image": {"images": [{"b64": TEXT}]},
        "an image and a number": {"images": [TEXT, 1]},
    }
    for name, document in no_documents.items():
        yield Attempt(name, post_json("/predict", document), MALFORMED)
    for name, text in {
        "no base64": "!!",
        "base64 with a blank": "Y Q==",
        "base64 with a line break": "Y\nQ==",
        "base64 without its padding": "YQ",
        "base64 with too much padding": "YQ===",
        "base64 and something behind it": "YQ==YQ==",
        "base64 of URLs": "-_-_",
        "letters beyond ASCII": "é",
        "a null": "\0",
        "a data URI without base64": "data:image/png,abc",
        "a data URI without a comma": "data:image/png;base64",
        "a data URI with a long media type": "data:" + "x" * 300 + ";base64,YQ==",
        "a URL": "http://169.254.169.254/latest/meta-data",
        "a path": "/etc/passwd",
        "a file URL": "file:///etc/passwd",
    }.items():
        yield Attempt(name, post_json("/predict", {"images": [text]}), INSTANCE)
    yield Attempt("an empty text", post_json("/predict", {"images": [""]}), UNDECODABLE)
    yield Attempt("base64 of no picture", post_json("/predict", {"images": ["YQ=="]}), UNDECODABLE)
    yield Attempt("5 images, 4 are allowed", post_json("/predict", {"images": [TEXT] * 5}), TOO_MANY)
    crumbs = {"images": [""] * 12_000}
    yield Attempt("12,000 empty texts", post_json("/predict", crumbs), TOO_MANY)
    crumbs_of_objects = post_json("/predict", '{"images": [' + "{}," * 12_000 + "{}]}")
    yield Attempt("12,000 empty objects", crumbs_of_objects, TOO_MANY)
    nested = post_json("/predict", '{"images":' * 100 + "1" + "}" * 100)
    yield Attempt("100 objects in each other", nested, MALFORMED)
    yield Attempt("a good image and a bad one", post_json("/predict", {"images": [TEXT, "!!"]}), OK)
    yield Attempt("the same key twice", post_json("/predict", f'{{"images": 1, "images": ["{TEXT}"]}}'), OK)
