"""The Open Inference Protocol and TensorFlow Serving's REST API: declarations, content, raw tensors."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping

from tests.service.refusals.attempt import (
    IMAGE,
    MALFORMED,
    METHOD,
    NO_MODEL,
    NO_ROUTE,
    OK,
    PARAMETER,
    PIXELS,
    TENSOR,
    TOO_MANY,
    UNDECODABLE,
    UNSUPPORTED,
    Attempt,
    Stated,
    head,
    post,
    post_json,
)

V1, V2 = "/v1/models/tiny:predict", "/v2/models/tiny/infer"
TEXT = base64.b64encode(IMAGE).decode()
FLAT = PIXELS.reshape(-1).tolist()
SHAPE = [1, *PIXELS.shape]
SIZE = PIXELS.size


def tensor(**changes: object) -> dict[str, object]:
    """The right input, but for these."""
    whole = {"name": "images", "datatype": "UINT8", "shape": SHAPE, "data": FLAT, **changes}
    return {key: value for key, value in whole.items() if value is not ...}


def asked(*inputs: object, **rest: object) -> bytes:
    """A request with these inputs."""
    return post_json(V2, {"inputs": list(inputs), **rest})


def wanting(**output: object) -> bytes:
    """The right request, for this output."""
    return asked(tensor(), outputs=[output])


def raw(content: bytes, header: int | str | None = None, /, **changes: object) -> bytes:
    """A request whose tensor follows its JSON; ``header`` says otherwise how long that is."""
    declared = {"parameters": {"binary_data_size": len(content)}, "data": ..., **changes}
    document = json.dumps({"inputs": [tensor(**declared)]}).encode()
    said = len(document) if header is None else header
    return post(V2, document + content, f"Inference-Header-Content-Length: {said}")


def element(content: bytes, said: int | None = None) -> bytes:
    """One of a raw BYTES tensor."""
    return (len(content) if said is None else said).to_bytes(4, "little") + content


def declarations() -> Iterator[Attempt]:
    """What a request says of its tensors."""
    yield from _all(
        MALFORMED,
        {
            "no body": post(V2, b""),
            "no JSON": post_json(V2, "{"),
            "a list": post_json(V2, []),
            "null": post_json(V2, None),
            "5,000 brackets as inputs": post_json(V2, '{"inputs":' + "[" * 5000 + "]" * 5000 + "}"),
            "no inputs": post_json(V2, {}),
            "null for inputs": post_json(V2, {"inputs": None}),
            "an object for inputs": post_json(V2, {"inputs": tensor()}),
            "a number as an input": asked(7),
            "an input without a name": asked(tensor(name=...)),
            "a number for a name": asked(tensor(name=7)),
            "an input without a datatype": asked(tensor(datatype=...)),
            "an input without a shape": asked(tensor(shape=...)),
            "a text for a shape": asked(tensor(shape="1,8,8,1")),
            "a shape of texts": asked(tensor(shape=["1", "8", "8", "1"])),
            "a shape of fractions": asked(tensor(shape=[1.0, 8.0, 8.0, 1.0])),
            "a shape of truths": asked(tensor(shape=[True, 8, 8, 1])),
            "an input without data": asked(tensor(data=...)),
            "a text for data": asked(tensor(data=TEXT)),
            "an object for data": asked(tensor(data={"0": 1})),
            "a number for parameters": asked(tensor(parameters=7)),
            "a number for the request's parameters": asked(tensor(), parameters=7),
            "a number for the id": asked(tensor(), id=7),
            "12,000 empty objects": post_json(V2, '{"inputs": [' + "{}," * 12_000 + "{}]}"),
            "17 dimensions": asked(tensor(shape=[1] * 17)),
            "17 inputs": asked(*[tensor()] * 17),
            "17 outputs": asked(tensor(), outputs=[{"name": "logits"}] * 17),
            "a text for outputs": asked(tensor(), outputs="logits"),
            "a text as an output": asked(tensor(), outputs=["logits"]),
            "an output without a name": wanting(),
        },
    )
    yield from _all(
        TENSOR,
        {
            "an empty list of inputs": asked(),
            "two inputs": asked(tensor(), tensor()),
            "another name": asked(tensor(name="image")),
            "another datatype": asked(tensor(datatype="FP32")),
            "a datatype in lower case": asked(tensor(datatype="uint8")),
            "no dimension": asked(tensor(shape=[])),
            "too few dimensions": asked(tensor(shape=[1, 8, 8])),
            "too many dimensions": asked(tensor(shape=[1, 1, 8, 8, 1])),
            "another height": asked(tensor(shape=[1, 9, 8, 1])),
            "no instance": asked(tensor(shape=[0, 8, 8, 1], data=[])),
            "a negative number of instances": asked(tensor(shape=[-1, 8, 8, 1])),
            "shared memory": asked(tensor(parameters={"shared_memory_region": "x"})),
            "shared memory for an output": wanting(name="logits", parameters={"shared_memory_region": "x"}),
            "an unknown output": wanting(name="features"),
            "an output wanted twice": asked(tensor(), outputs=[{"name": "logits"}] * 2),
            "0 classes": wanting(name="logits", parameters={"classification": 0}),
            "a fraction of classes": wanting(name="logits", parameters={"classification": 1.5}),
            "true classes": wanting(name="logits", parameters={"classification": True}),
            "a text for a flag": wanting(name="logits", parameters={"binary_data": "yes"}),
            "a number for the request's flag": asked(tensor(), parameters={"binary_data_output": 1}),
            "a negative timeout": asked(tensor(), parameters={"timeout": -1}),
            "a timeout of a fraction": asked(tensor(), parameters={"timeout": 1.5}),
            "a timeout of years": asked(tensor(), parameters={"timeout": 10**17}),
        },
    )
    yield Attempt("5 instances, 4 are allowed", asked(tensor(shape=[5, 8, 8, 1], data=FLAT * 5)), TOO_MANY)
    yield Attempt("2⁶² instances", asked(tensor(shape=[2**62, 8, 8, 1])), TOO_MANY)
    yield Attempt("2⁷⁰ instances", asked(tensor(shape=[2**70, 8, 8, 1])), MALFORMED)
    yield Attempt("compressed", post(V2, b"x", "Content-Encoding: gzip"), UNSUPPORTED)
    yield Attempt("an unknown model", post_json("/v2/models/nothing/infer", {}), NO_MODEL)
    yield Attempt("an unknown version", post_json("/v2/models/tiny/versions/2/infer", {}), NO_MODEL)
    yield Attempt("a model out of the folder", post_json("/v2/models/..%2f..%2fetc/infer", {}), NO_ROUTE)
    yield Attempt("metadata of an unknown model", head("GET /v2/models/nothing"), NO_MODEL)
    yield Attempt("an unknown model's readiness", head("GET /v2/models/nothing/ready"), NO_MODEL)
    yield Attempt("an index that is no JSON", post_json("/v2/repository/index", "{"), MALFORMED)
    yield Attempt("an index of a number", post_json("/v2/repository/index", 7), PARAMETER)
    yield Attempt(
        "an index that is ready perhaps", post_json("/v2/repository/index", {"ready": "x"}), PARAMETER
    )


def contents() -> Iterator[Attempt]:
    """What stands in the tensors."""
    encoded: dict[str, object] = {"datatype": "BYTES", "shape": [1]}
    yield from _all(
        TENSOR,
        {
            "a number too few": asked(tensor(data=FLAT[1:])),
            "a number too many": asked(tensor(data=[*FLAT, 0])),
            "no number": asked(tensor(data=[])),
            "256": asked(tensor(data=[*FLAT[1:], 256])),
            "-1": asked(tensor(data=[*FLAT[1:], -1])),
            "a fraction": asked(tensor(data=[*FLAT[1:], 0.5])),
            "a text among numbers": asked(tensor(data=[*FLAT[1:], "0"])),
            "null among numbers": asked(tensor(data=[*FLAT[1:], None])),
            "a list among numbers": asked(tensor(data=[*FLAT[1:], [0]])),
            "a number among lists": asked(tensor(data=[[FLAT], 0])),
            "lists of another nesting": asked(tensor(data=[FLAT])),
            "ragged lists": asked(tensor(data=[[[[0]] * 8] * 7 + [[[0]] * 7]])),
            "a number as an encoded image": asked(tensor(**encoded, data=[7])),
            "an encoded image that is no base64": asked(tensor(**encoded, data=["!!"])),
            "two encoded images for one": asked(tensor(**encoded, data=[TEXT, TEXT])),
            "no encoded image for one": asked(tensor(**encoded, data=[])),
            "raw: a byte too few": raw(bytes(SIZE - 1)),
            "raw: a byte too many": raw(bytes(SIZE + 1)),
            "raw: nothing": raw(b""),
            "raw: an element that is longer than it is": raw(element(IMAGE, len(IMAGE) + 1), **encoded),
            "raw: an element of 4 GiB": raw(element(IMAGE, 2**32 - 1), **encoded),
            "raw: half an element's length": raw(b"\1\0", **encoded),
            "raw: something behind the last element": raw(element(IMAGE) + b"x", **encoded),
        },
    )
    yield from _all(
        MALFORMED,
        {
            "raw: a header of no length": raw(bytes(SIZE), ""),
            "raw: a header of length 0": raw(bytes(SIZE), 0),
            "raw: a negative header": raw(bytes(SIZE), -1),
            "raw: a header longer than the body": raw(bytes(SIZE), 99_999),
            "raw: a header of 3,000 digits": raw(bytes(SIZE), "9" * 3000),
            "raw: a header that ends in the JSON": raw(bytes(SIZE), 40),
            "raw: a header that ends in the tensor": raw(bytes(SIZE), 170),
            "raw: a negative size": raw(bytes(SIZE), parameters={"binary_data_size": -1}),
            "raw: a size beyond the body": raw(bytes(SIZE), parameters={"binary_data_size": SIZE + 1}),
            "raw: a size of 2⁷⁰": raw(bytes(SIZE), parameters={"binary_data_size": 2**70}),
            "raw: a text for a size": raw(bytes(SIZE), parameters={"binary_data_size": "64"}),
            "raw: a size that leaves bytes over": raw(bytes(SIZE), parameters={"binary_data_size": 1}),
            "raw: no size": raw(bytes(SIZE), parameters={}),
        },
    )
    yield Attempt("an encoded image that is none", asked(tensor(**encoded, data=["YQ=="])), UNDECODABLE)
    yield Attempt("raw: an encoded image that is none", raw(element(b"text"), **encoded), UNDECODABLE)
    yield Attempt("raw: an empty element", raw(element(b""), **encoded), UNDECODABLE)


def rows() -> Iterator[Attempt]:
    """TensorFlow Serving's row form."""
    nested = PIXELS.tolist()
    yield from _all(
        MALFORMED,
        {
            "no JSON": post_json(V1, "{"),
            "a list": post_json(V1, []),
            "no instances": post_json(V1, {}),
            "the columnar form": post_json(V1, {"inputs": [nested]}),
            "null for instances": post_json(V1, {"instances": None}),
            "an object for instances": post_json(V1, {"instances": {"b64": TEXT}}),
            "an empty list of instances": post_json(V1, {"instances": []}),
            "12,000 empty objects": post_json(V1, '{"instances": [' + "{}," * 12_000 + "{}]}"),
            "5,000 brackets": post_json(V1, '{"instances":' + "[" * 5000 + "]" * 5000 + "}"),
        },
    )
    yield from _all(
        TENSOR,
        {
            "another signature": post_json(V1, {"signature_name": "classify", "instances": [nested]}),
            "a signature that is a list": post_json(V1, {"signature_name": [], "instances": [nested]}),
            "a number as an instance": post_json(V1, {"instances": [7]}),
            "a text as an instance": post_json(V1, {"instances": [TEXT]}),
            "null as an instance": post_json(V1, {"instances": [None]}),
            "an object without b64": post_json(V1, {"instances": [{"image": TEXT}]}),
            "b64 of a number": post_json(V1, {"instances": [{"b64": 7}]}),
            "b64 that is none": post_json(V1, {"instances": [{"b64": "!!"}]}),
            "another input": post_json(V1, {"instances": [{"image_bytes": {"b64": TEXT}}]}),
            "too few rows": post_json(V1, {"instances": [nested[1:]]}),
            "too few channels": post_json(V1, {"instances": [[[0] * 8] * 8]}),
            "256": post_json(V1, {"instances": [[[[256]] * 8] * 8]}),
            "fractions": post_json(V1, {"instances": [[[[0.5]] * 8] * 8]}),
            "a good instance and a bad one": post_json(V1, {"instances": [{"b64": TEXT}, 7]}),
        },
    )
    yield Attempt("5 instances, 4 are allowed", post_json(V1, {"instances": [nested] * 5}), TOO_MANY)
    yield Attempt("b64 of no picture", post_json(V1, {"instances": [{"b64": "YQ=="}]}), UNDECODABLE)
    yield Attempt("an unknown model", post_json("/v1/models/nothing:predict", {"instances": []}), NO_MODEL)
    yield Attempt("another verb", post_json("/v1/models/tiny:classify", {"instances": []}), METHOD)
    yield Attempt("an unknown model's status", head("GET /v1/models/nothing"), NO_MODEL)
    yield Attempt("a row", post_json(V1, {"instances": [nested]}), OK)


def _all(stated: Stated, requests: Mapping[str, bytes]) -> Iterator[Attempt]:
    return (Attempt(name, data, stated) for name, data in requests.items())
