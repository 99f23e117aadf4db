"""``multipart/form-data`` that lies in memory as a whole, cut into its file parts without a copy.

::

    --B CRLF  headers CRLF CRLF  content  CRLF --B CRLF  headers …  CRLF --B--  epilogue

A part with a file name is an image. Fields without one carry nothing that this service reads. An
empty part with an empty file name is what a browser sends for a form in which no file was chosen.

Source: RFC 2046 section 5.1 (multipart), RFC 7578 (form-data).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from service.errors import MalformedBody

# One `; name=value` of a header; a quoted value is passed over as a whole, so that nothing in it is taken
# for a parameter.
_PARAMETER = re.compile(
    rb""";\s*(?P<name>[\w!#$&+^`|~.*-]+)\s*=\s*(?:"(?P<quoted>(?:[^"\\]|\\.)*)"|(?P<plain>[^;\s]*))"""
)
# RFC 2046: 1 to 70 characters of this alphabet, not ending in a space.
_BOUNDARY = re.compile(rb"[\w'()+,./:=? -]{0,69}[\w'()+,./:=?-]", re.ASCII)
# A part's headers are short; whoever needs more is not sending a form.
_MAX_PART_HEADER_BYTES = 8192
# Parts without a file cost time and say nothing here; those with one are counted as images.
_MAX_FIELDS = 100


@dataclass(frozen=True, slots=True)
class Part:
    """One part of a form. ``file_name`` is None for a plain field."""

    file_name: bytes | None
    content: memoryview


def boundary_of(content_type: bytes) -> bytes:
    """The boundary parameter of a Content-Type.

    Raises:
        MalformedBody: There is none, or not one that RFC 2046 allows.
    """
    boundary = _parameter(content_type, b"boundary")
    if boundary is None or not _BOUNDARY.fullmatch(boundary):
        raise MalformedBody("multipart/form-data without a valid boundary in its Content-Type")
    return boundary


def file_parts(body: bytes, boundary: bytes) -> Iterator[memoryview]:
    """The contents of all file parts, in order, as views into the body.

    Raises:
        MalformedBody: The body does not follow its boundary, a part has broken headers, or too many have no
            file.
    """
    fields = 0
    for part in split_parts(body, boundary):
        if part.file_name is not None and (part.file_name or part.content):
            yield part.content
            continue
        fields += 1
        if fields > _MAX_FIELDS:
            raise MalformedBody(f"a form with more than {_MAX_FIELDS} parts that are no files")


def split_parts(body: bytes, boundary: bytes) -> Iterator[Part]:
    """All parts of a form, in order.

    Raises:
        MalformedBody: As for `file_parts`.
    """
    view = memoryview(body)
    delimiter = b"\r\n--" + boundary
    position = _after_first_delimiter(body, delimiter)
    while not body.startswith(b"--", position):
        start = _line_end(body, position)
        end = body.find(delimiter, start - 2)
        if end < 0:
            raise MalformedBody("multipart body ends before its closing boundary")
        yield _part(body, view, start, end)
        position = end + len(delimiter)


def _after_first_delimiter(body: bytes, delimiter: bytes) -> int:
    """The position behind the first delimiter, which may stand at the very start of the body."""
    if body.startswith(delimiter[2:]):
        return len(delimiter) - 2
    preamble = body.find(delimiter)
    if preamble < 0:
        raise MalformedBody("multipart body does not contain its boundary")
    return preamble + len(delimiter)


def _line_end(body: bytes, position: int) -> int:
    """The position behind the rest of a delimiter line: optional blanks and CRLF."""
    end = body.find(b"\r\n", position)
    if end < 0 or body[position:end].strip(b" \t"):
        raise MalformedBody("multipart boundary is not followed by a line break")
    return end + 2


def _part(body: bytes, view: memoryview, start: int, end: int) -> Part:
    split = body.find(b"\r\n\r\n", start, end)
    if split < 0 or split - start > _MAX_PART_HEADER_BYTES:
        raise MalformedBody("multipart part without an end of its headers")
    for line in body[start:split].split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-disposition":
            return Part(_parameter(value, b"filename"), view[split + 4 : end])
    raise MalformedBody("multipart part without Content-Disposition")


def _parameter(header: bytes, name: bytes) -> bytes | None:
    """The value of a header's parameter (also in its extended form, ``name*``); None where it is absent."""
    for match in _PARAMETER.finditer(header):
        if match["name"].lower().removesuffix(b"*") == name:
            return match["quoted"] if match["quoted"] is not None else match["plain"]
    return None
