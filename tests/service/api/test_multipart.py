"""Forms, against the parser that everybody uses."""

from __future__ import annotations

import io

import pytest
from hypothesis import given
from hypothesis import strategies as st
from python_multipart.multipart import MultipartParser, parse_options_header

from service.api.multipart import Part, boundary_of, file_parts, split_parts
from service.errors import MalformedBody

BOUNDARY = b"B0undary"

contents = st.one_of(
    st.binary(max_size=200),
    st.lists(st.sampled_from([b"\r\n", b"--", BOUNDARY[:-1], b"\r\n--", b"x", b"\r", b"\n"])).map(b"".join),
).filter(lambda content: b"\r\n--" + BOUNDARY not in b"\r\n" + content)
file_names = st.none() | st.text("abc .;=é", max_size=12).map(lambda name: name.encode())
parts = st.lists(st.tuples(file_names, contents), min_size=1, max_size=5)


def encode(fields: list[tuple[bytes | None, bytes]], boundary: bytes = BOUNDARY) -> bytes:
    body = io.BytesIO()
    for file_name, content in fields:
        disposition = b'form-data; name="f"' + (b"" if file_name is None else b'; filename="%s"' % file_name)
        body.write(b"--%s\r\nContent-Disposition: %s\r\n" % (boundary, disposition))
        body.write(b"Content-Type: application/octet-stream\r\n\r\n%s\r\n" % content)
    body.write(b"--%s--\r\n" % boundary)
    return body.getvalue()


class Reference:
    """What python-multipart makes of a body."""

    def __init__(self, body: bytes) -> None:
        self.parts: list[tuple[bytes | None, bytes]] = []
        self._header = b""
        self._name: bytes | None = None
        self._content = b""
        parser = MultipartParser(
            BOUNDARY,
            {
                "on_part_begin": self._begin,
                "on_header_field": lambda data, start, end: None,
                "on_header_value": self._value,
                "on_header_end": self._header_end,
                "on_part_data": self._data,
                "on_part_end": lambda: self.parts.append((self._name, self._content)),
            },
        )
        parser.write(body)
        parser.finalize()

    def _begin(self) -> None:
        self._header, self._name, self._content = b"", None, b""

    def _value(self, data: bytes, start: int, end: int) -> None:
        self._header += data[start:end]

    def _header_end(self) -> None:
        value, options = parse_options_header(self._header)
        if value == b"form-data":
            self._name = options.get(b"filename")
        self._header = b""

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._content += data[start:end]


@given(parts)
def test_agrees_with_python_multipart(fields: list[tuple[bytes | None, bytes]]) -> None:
    body = encode(fields)
    ours = [(part.file_name, bytes(part.content)) for part in split_parts(body, BOUNDARY)]
    assert ours == Reference(body).parts == fields


@given(parts, st.binary(max_size=40))
def test_preamble_and_epilogue_are_passed_over(
    fields: list[tuple[bytes | None, bytes]], noise: bytes
) -> None:
    noise = noise.replace(b"-", b"")
    body = noise + b"\r\n" + encode(fields) + noise
    assert [bytes(part.content) for part in split_parts(body, BOUNDARY)] == [content for _, content in fields]


@given(st.binary(max_size=300), parts, st.data())
def test_any_bytes_give_parts_or_one_error(
    noise: bytes, fields: list[tuple[bytes | None, bytes]], data: st.DataObject
) -> None:
    body = encode(fields)
    cut = data.draw(st.integers(0, len(body)))
    for damaged in (noise, body[:cut], body[:cut] + noise + body[cut:]):
        try:
            assert all(isinstance(part, Part) for part in split_parts(damaged, BOUNDARY))
        except MalformedBody:
            continue


def test_parts_are_views_and_only_files_are_images() -> None:
    body = encode([(None, b"field"), (b"a.png", b"one"), (b"", b""), (b"", b"two"), (b"c.png", b"")])
    assert [bytes(part) for part in file_parts(body, BOUNDARY)] == [b"one", b"two", b""]
    assert next(file_parts(body, BOUNDARY)).obj is body


@pytest.mark.parametrize(
    ("content_type", "boundary"),
    [
        (b"multipart/form-data; boundary=abc", b"abc"),
        (b'multipart/form-data; boundary="a b"', b"a b"),
        (b"multipart/form-data;charset=utf-8;BOUNDARY=abc ;x=y", b"abc"),
        (b'multipart/form-data; x="; boundary=no"; boundary=yes', b"yes"),
    ],
)
def test_boundary_is_found(content_type: bytes, boundary: bytes) -> None:
    assert boundary_of(content_type) == boundary


@pytest.mark.parametrize(
    "content_type",
    [
        b"multipart/form-data",
        b"multipart/form-data; boundary=",
        b'multipart/form-data; boundary="a "',
        b"multipart/form-data; boundary=" + b"a" * 71,
    ],
)
def test_a_bad_boundary_is_refused(content_type: bytes) -> None:
    with pytest.raises(MalformedBody, match="boundary"):
        boundary_of(content_type)


@pytest.mark.parametrize(
    ("body", "message"),
    [
        (b"", "does not contain its boundary"),
        (b"--B0undary", "not followed by a line break"),
        (b"--B0undaryX\r\n", "not followed by a line break"),
        (b"--B0undary\r\nA: b\r\n\r\nrest", "ends before its closing boundary"),
        (b"--B0undary\r\nA: b\r\n--B0undary--", "without an end of its headers"),
        (b"--B0undary\r\nA: b\r\n\r\n\r\n--B0undary--", "without Content-Disposition"),
        (b"--B0undary\r\nA: " + b"b" * 9000 + b"\r\n\r\n\r\n--B0undary--", "without an end of its headers"),
    ],
)
def test_what_is_broken_is_named(body: bytes, message: str) -> None:
    with pytest.raises(MalformedBody, match=message):
        list(split_parts(body, BOUNDARY))
