"""The binary tensor form, by properties: what was written is read, exactly; anything else has a reason."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from service.api.protocol.carriage import encode_response, parse_request
from service.api.protocol.tensors import OutputTensor, images_of, instances_of
from service.errors import MalformedBody, RequestError
from tests.service.api.protocol.wire import bytes_raw
from tests.service.images.contracts import contract

CONTRACT = contract(2, 3)
MOST = 8

names = st.text(st.characters(exclude_categories=["Cs"]), max_size=12)
tensors = st.tuples(
    names, names, st.lists(st.integers(-(2**63), 2**64 - 1), max_size=4), st.binary(max_size=40)
)
timeouts = st.integers(1, 3_600_000_000)


def written(tensors: Sequence[tuple[str, str, list[int], bytes]], **rest: Any) -> tuple[bytes, bytes]:
    """A body and the length of its header, by the protocol's text."""
    inputs = [
        {"name": name, "datatype": kind, "shape": shape, "parameters": {"binary_data_size": len(raw)}}
        for name, kind, shape, raw in tensors
    ]
    head = json.dumps({"inputs": inputs, **rest}).encode()
    return head + b"".join(raw for *_, raw in tensors), b"%d" % len(head)


@given(st.lists(tensors, max_size=4), names, timeouts)
def test_what_is_written_is_read(
    tensors: list[tuple[str, str, list[int], bytes]], identity: str, timeout_us: int
) -> None:
    body, length = written(tensors, id=identity, parameters={"timeout": timeout_us})
    request = parse_request(body, length)
    found = [(each.name, each.datatype, list(each.shape)) for each in request.inputs]
    assert found == [(name, kind, shape) for name, kind, shape, _ in tensors]
    assert [each.content for each in request.inputs] == [raw for *_, raw in tensors]  # views compare as bytes
    assert (request.id, request.timeout_s) == (identity, timeout_us / 1e6)


@given(arrays.arrays(np.uint8, st.tuples(st.integers(1, MOST), st.just(2), st.just(3), st.just(3))))
def test_raw_pixels_are_read_as_they_are_and_not_copied(pixels: NDArray[np.uint8]) -> None:
    body, length = written([("images", "UINT8", list(pixels.shape), pixels.tobytes())])
    read = instances_of(images_of(parse_request(body, length).inputs, CONTRACT, MOST))
    assert np.array_equal(np.stack([np.asarray(each) for each in read]), pixels)
    assert np.shares_memory(np.asarray(read[0]), np.frombuffer(body, np.uint8))


@given(st.lists(st.binary(max_size=20), min_size=1, max_size=MOST))
def test_elements_of_bytes_are_read_as_they_are(elements: list[bytes]) -> None:
    body, length = written([("images", "BYTES", [len(elements)], bytes_raw(elements))])
    read = instances_of(images_of(parse_request(body, length).inputs, CONTRACT, MOST))
    assert [bytes(each) for each in read if isinstance(each, memoryview)] == elements


@given(
    st.lists(
        st.tuples(
            arrays.arrays(
                np.float32, st.tuples(st.integers(1, 4), st.integers(1, 5)), elements=st.floats(width=32)
            ),
            st.booleans(),
        ),
        max_size=3,
    )
)
def test_raw_outputs_are_written_exactly(outputs: list[tuple[NDArray[np.float32], bool]]) -> None:
    tensors = [OutputTensor(f"o{i}", values, is_binary) for i, (values, is_binary) in enumerate(outputs)]
    headers, body = encode_response(tensors, model="m", version="1", identity="i")
    length = int(dict(headers).get(b"inference-header-content-length", b"%d" % len(body)))
    head, raw = json.loads(body[:length]), body[length:]
    for (values, is_binary), described in zip(outputs, head["outputs"], strict=True):
        assert described["shape"] == list(values.shape)
        if is_binary:
            size = described["parameters"]["binary_data_size"]
            assert raw[:size] == values.tobytes()
            raw = raw[size:]
        else:  # JSON has no word for what is not finite
            given = np.array([np.nan if value is None else value for value in described["data"]], np.float32)
            assert np.array_equal(
                given, np.where(np.isfinite(values), values, np.nan).reshape(-1), equal_nan=True
            )
    assert raw == b""


def read_all(body: bytes, length: bytes | None) -> None:
    """Read a body to its last instance; a refusal says why."""
    reason = "read"
    try:
        instances_of(images_of(parse_request(body, length).inputs, CONTRACT, MOST))
    except RequestError as error:
        reason = error.detail
    assert reason


lengths = st.none() | st.binary(max_size=6) | st.integers(-3, 300).map(lambda n: b"%d" % n)


@given(st.binary(max_size=200), lengths)
@example(b"{}", b"9" * 5000)
@example(b'{"inputs": [{"name": "images", "datatype": "BYTES", "shape": [9223372036854775807]}]}', None)
def test_any_bytes_are_read_or_refused_with_a_reason(body: bytes, length: bytes | None) -> None:
    read_all(body, length)


@given(
    st.sampled_from(["UINT8", "BYTES", "FP32", ""]),
    st.lists(st.sampled_from([-1, 0, 1, 2, 3, 9, 2**40, 2**63]), max_size=5),
    st.one_of(st.binary(max_size=60), st.lists(st.binary(max_size=9), max_size=4).map(bytes_raw)),
    st.integers(-3, 3),
    st.integers(-3, 3),
)
def test_any_declaration_is_read_or_refused_with_a_reason(
    kind: str, shape: list[int], raw: bytes, size_off: int, length_off: int
) -> None:
    described = {"name": "images", "datatype": kind, "shape": shape}
    head = json.dumps({"inputs": [{**described, "parameters": {"binary_data_size": len(raw) + size_off}}]})
    read_all(head.encode() + raw, b"%d" % (len(head) + length_off))


@pytest.mark.parametrize(
    "length", [b"0", b"-1", b"+5", b" 5", b"5.0", b"1e1", b"", b"9" * 5000, "٣".encode()]
)
def test_a_length_that_is_none_is_told(length: bytes) -> None:
    with pytest.raises(MalformedBody, match="Inference-Header-Content-Length must be a number from 1"):
        parse_request(b'{"inputs": []}', length)
