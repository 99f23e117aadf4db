"""An HTTP body of the Open Inference Protocol, and back.

::

    without Inference-Header-Content-Length     JSON, tensors as "data" in it
    with it: n                                  n bytes of JSON │ raw tensors, in the order of the inputs,
                                                each as long as its "binary_data_size"

An answer has the second form if any of its outputs was wanted in binary (``binary_data`` of an output,
``binary_data_output`` of the request).

Source: Open Inference Protocol, "Inference Request"; Triton Inference Server, "Binary Tensor Data Extension".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, TypeAlias, cast

import orjson

from service.api.exchange import Header
from service.api.numerals import whole_number
from service.api.payload import parsed_json
from service.api.protocol.tensors import (
    OUTPUT_NAMES,
    InferRequest,
    InputTensor,
    OutputTensor,
    RequestedOutput,
    check_classes,
    check_distinct,
    check_output,
)
from service.errors import InvalidTensor, MalformedBody

# In lower case, as ASGI has them.
JSON_LENGTH_HEADER: Final = b"inference-header-content-length"

_Json: TypeAlias = dict[str, object]

_PLAIN: Final = ((b"content-type", b"application/json"),)
_MICROSECONDS: Final = 1e6
_MAX_TIMEOUT_US: Final = 3_600_000_000
# Of inputs, outputs and dimensions; more than a model here has, few enough to be looked at.
_MOST: Final = 16
# The request's, those of its tensors, and the parameters of each.
_MOST_OBJECTS: Final = 2 + 4 * _MOST


def parse_request(body: bytes, json_length: bytes | None) -> InferRequest:
    """The request in a body; raw tensors are views into it.

    Args:
        body: The whole body.
        json_length: The header of that name, if it was sent.

    Raises:
        MalformedBody: It is not of the protocol's form.
        InvalidTensor: An output or a parameter that there is not.
    """
    view = memoryview(body)
    length = len(body) if json_length is None else _parse_length(json_length, len(body))
    document = _as_object(parsed_json(body, _MOST_OBJECTS, length), "the body")
    parameters = _parameters(document, "the request")
    identity = document.get("id", "")
    if not isinstance(identity, str):
        raise MalformedBody('"id" must be a string')
    inputs = _inputs(document, view[length:])
    return InferRequest(identity, inputs, _outputs(document, parameters), _timeout_s(parameters))


def encode_response(
    outputs: Sequence[OutputTensor], *, model: str, version: str, identity: str
) -> tuple[Sequence[Header], bytes]:
    """Headers and body of an answer."""
    described, raw = [], []
    for output in outputs:
        entry: _Json = {"name": output.name, "datatype": output.datatype, "shape": output.shape}
        if output.is_binary:
            raw.append(output.raw())
            entry["parameters"] = {"binary_data_size": len(raw[-1])}
        else:
            entry["data"] = _json_data(output)
        described.append(entry)
    document = orjson.dumps(
        {"model_name": model, "model_version": version, "id": identity, "outputs": described},
        option=orjson.OPT_SERIALIZE_NUMPY,
    )
    if not raw:
        return _PLAIN, document
    length = b"%d" % len(document)
    return (
        ((b"content-type", b"application/octet-stream"), (JSON_LENGTH_HEADER, length)),
        b"".join((document, *raw)),
    )


def _json_data(output: OutputTensor) -> object:
    """Row-major."""
    if isinstance(output.values, list):
        return [text.decode() for text in output.texts]
    return output.values.reshape(-1)


def _parse_length(given: bytes, size: int) -> int:
    length = whole_number(given, 1, size)
    if length is None:
        raise MalformedBody(
            f"Inference-Header-Content-Length must be a number from 1 to the body's {size} bytes, "
            f"not '{given.decode('latin-1')}'"
        )
    return length


def _as_object(value: object, what: str) -> _Json:
    if not isinstance(value, dict):
        raise MalformedBody(f"{what} must be a JSON object")
    return cast("_Json", value)


def _as_list(value: object, what: str) -> list[object]:
    if not isinstance(value, list):
        raise MalformedBody(f"{what} must be a list")
    return cast("list[object]", value)


def _as_short_list(value: object, what: str) -> list[object]:
    """A list of what a request has few of: a long one is refused before its items are looked at."""
    items = _as_list(value, what)
    if len(items) > _MOST:
        raise MalformedBody(f"{what} must be a list of at most {_MOST}, not {len(items)}")
    return items


def _text(document: _Json, key: str, what: str) -> str:
    value = document.get(key)
    if not isinstance(value, str):
        raise MalformedBody(f'{what} must have a "{key}", a string')
    return value


def _parameters(document: _Json, what: str) -> _Json:
    value = document.get("parameters")
    return {} if value is None else _as_object(value, f'"parameters" of {what}')


def _inputs(document: _Json, binary: memoryview) -> list[InputTensor]:
    inputs, at = [], 0
    for entry in _as_short_list(document.get("inputs"), '"inputs"'):
        tensor, end = _input(_as_object(entry, "an input"), binary, at)
        inputs.append(tensor)
        at = end
    if at != len(binary):
        raise MalformedBody(
            f"{len(binary)} bytes follow the JSON; the inputs' binary_data_size is {at} in all"
        )
    return inputs


def _input(entry: _Json, binary: memoryview, at: int) -> tuple[InputTensor, int]:
    """One input, and where its raw content ends."""
    name, datatype = _text(entry, "name", "an input"), _text(entry, "datatype", "an input")
    shape = _as_short_list(entry.get("shape"), f"\"shape\" of input '{name}'")
    if not all(type(size) is int for size in shape):
        raise MalformedBody(f"\"shape\" of input '{name}' must be a list of whole numbers")
    parameters = _parameters(entry, f"input '{name}'")
    if "shared_memory_region" in parameters:
        raise InvalidTensor(f"input '{name}': shared memory is not offered; send the data with the request")
    size = parameters.get("binary_data_size")
    if size is None:
        content = _as_list(entry.get("data"), f"\"data\" of input '{name}'")
        return InputTensor(name, datatype, cast("list[int]", shape), content), at
    if type(size) is not int or not 0 <= size <= len(binary) - at:
        raise MalformedBody(
            f"binary_data_size of input '{name}' is {size}; {len(binary) - at} bytes are there for it"
        )
    return InputTensor(name, datatype, cast("list[int]", shape), binary[at : at + size]), at + size


def _outputs(document: _Json, parameters: _Json) -> Sequence[RequestedOutput]:
    """What is wanted; without "outputs", every output there is."""
    is_binary = _flag(parameters, "binary_data_output", default=False)
    wanted = document.get("outputs")
    if wanted is None or wanted == []:
        return [RequestedOutput(name, is_binary=is_binary) for name in OUTPUT_NAMES]
    entries = _as_short_list(wanted, '"outputs"')
    return check_distinct([_output(_as_object(entry, "an output"), is_binary) for entry in entries])


def _output(entry: _Json, is_binary: bool) -> RequestedOutput:
    name = check_output(_text(entry, "name", "an output"))
    parameters = _parameters(entry, f"output '{name}'")
    if "shared_memory_region" in parameters:
        raise InvalidTensor(f"output '{name}': shared memory is not offered")
    classes = parameters.get("classification")
    return RequestedOutput(
        name,
        0 if classes is None else check_classes(classes),
        _flag(parameters, "binary_data", default=is_binary),
    )


def _flag(parameters: _Json, name: str, *, default: bool) -> bool:
    value = parameters.get(name, default)
    if not isinstance(value, bool):
        raise InvalidTensor(f"parameter '{name}' must be true or false, not {value!r}")
    return value


def _timeout_s(parameters: _Json) -> float | None:
    """Triton's parameter ``timeout``, in microseconds."""
    return None if "timeout" not in parameters else check_timeout_s(parameters["timeout"])


def check_timeout_s(value: object) -> float | None:
    """The parameter ``timeout``, in seconds; None for 0, which says nothing.

    Raises:
        InvalidTensor: It is no number of microseconds.
    """
    if type(value) is not int or not 0 <= value <= _MAX_TIMEOUT_US:
        raise InvalidTensor(
            f"parameter 'timeout' must be whole microseconds up to {_MAX_TIMEOUT_US}, not {value!r}"
        )
    return value / _MICROSECONDS or None
