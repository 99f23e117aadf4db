"""What is fuzzed: functions of bytes that may refuse them, in the service's words, and do nothing else."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

import orjson

from service.api.payload import parse_payload
from service.api.protocol.carriage import parse_request
from service.api.protocol.tensors import images_of, instances_of
from service.artifact import METADATA_KEY, parse_metadata
from service.errors import ModelRejected, RequestError
from service.images import DecodeLimits, decode
from tests.service.images.contracts import contract
from tests.service.images.corpus import specimens
from tests.service.images.damage import damaged

_MAX_IMAGES: Final = 8
_BOUNDARY: Final = b"multipart/form-data; boundary=b"
_CONTRACT: Final = contract(8, 8)
_LIMITS: Final = DecodeLimits(max_pixels=250_000)
_LONGEST_SEED: Final = 20_000


@dataclass(frozen=True)
class Target:
    """One function to be fuzzed.

    Attributes:
        run: Takes any bytes; an exception of it is a finding.
        seeds: Where the search begins.
    """

    run: Callable[[bytes], None]
    seeds: Callable[[], Iterator[bytes]]


def _decode(data: bytes) -> None:
    try:
        pixels = decode(data, _CONTRACT, _LIMITS)
    except RequestError:
        return
    if pixels.shape != (8, 8, _CONTRACT.channels) or pixels.dtype != "uint8":
        raise AssertionError(f"{pixels.dtype} {pixels.shape}")


def _pictures() -> Iterator[bytes]:
    every = [each.data for each in specimens()] + [each.data for each in damaged()]
    return (data for data in every if len(data) <= _LONGEST_SEED)


def _form(data: bytes) -> None:
    for content_type in (_BOUNDARY, b"application/json"):
        try:
            images = parse_payload(content_type, data, _MAX_IMAGES)
        except RequestError:
            continue
        if not 1 <= len(images) <= _MAX_IMAGES:
            raise AssertionError(f"{len(images)} images")


def _forms() -> Iterator[bytes]:
    part = b'--b\r\nContent-Disposition: form-data; name="a"; filename="x"\r\n\r\ndata\r\n'
    yield part + b"--b--\r\n"
    yield b"preamble\r\n" + part * 2 + b"--b--"
    yield b'{"images": ["aGVsbG8=", "data:image/png;base64,aGVsbG8="]}'


def _tensors(data: bytes) -> None:
    """The first two bytes are the header's length, as text would be."""
    length, body = data[:2], data[2:]
    try:
        request = parse_request(body, b"%d" % int.from_bytes(length) if length != b"\0\0" else None)
        list(instances_of(images_of(request.inputs, _CONTRACT, _MAX_IMAGES)))
    except RequestError:
        return


def _tensor_requests() -> Iterator[bytes]:
    shape = [1, 8, 8, _CONTRACT.channels]
    size = 64 * _CONTRACT.channels
    tensor = {"name": "images", "datatype": "UINT8", "shape": shape}
    head = orjson.dumps({"inputs": [{**tensor, "parameters": {"binary_data_size": size}}]})
    yield len(head).to_bytes(2) + head + bytes(size)
    yield b"\0\0" + orjson.dumps({"inputs": [{**tensor, "data": [7] * size}]})
    encoded = {"name": "images", "datatype": "BYTES", "shape": [1], "data": ["aGVsbG8="]}
    yield b"\0\0" + orjson.dumps({"id": "1", "inputs": [encoded], "outputs": [{"name": "logits"}]})


def _metadata(data: bytes) -> None:
    try:
        parse_metadata({METADATA_KEY: data.decode("utf-8", "replace")}, Path("model.onnx"))
    except ModelRejected:
        return


def _metadata_documents() -> Iterator[bytes]:
    yield b"{}"
    yield orjson.dumps(
        {
            "schema_version": 1,
            "name": "digits",
            "version": "1",
            "created_at": "2026-01-01T00:00:00Z",
            "task": "multiclass",
            "labels": ["a", "b"],
            "input": {"height": 8, "width": 8, "channels": 1, "resize": "stretch", "colour_order": "gray"},
            "precision": "fp32",
            "selftest": {"tolerance": {"cpu": 1e-4}, "instances": [{"image": "AA==", "logits": [0, 1]}]},
        }
    )


TARGETS: Final = MappingProxyType(
    {
        "decode": Target(_decode, _pictures),
        "form": Target(_form, _forms),
        "tensors": Target(_tensors, _tensor_requests),
        "metadata": Target(_metadata, _metadata_documents),
    }
)
