"""Protobuf messages of the protocol ⇄ its tensors. Raw contents are views into the message."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from service.api.protocol.carriage import check_timeout_s
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
from service.api.rpc import open_inference_pb2 as pb
from service.errors import InvalidTensor, MalformedBody

_NO_SHARED_MEMORY = "'{name}': shared memory is not offered; send the data with the request"


def read_request(message: pb.ModelInferRequest) -> InferRequest:
    """The request in a message.

    Raises:
        MalformedBody: Raw contents for some of the inputs only.
        InvalidTensor: An output or a parameter that there is not.
    """
    raw = message.raw_input_contents
    if raw and len(raw) != len(message.inputs):
        raise MalformedBody(f"{len(message.inputs)} inputs, but {len(raw)} raw_input_contents")
    inputs = [
        _input(tensor, memoryview(raw[position]) if raw else _contents(tensor))
        for position, tensor in enumerate(message.inputs)
    ]
    timeout = _values(message.parameters).get("timeout")
    return InferRequest(
        id=message.id,
        inputs=inputs,
        outputs=check_distinct([_output(wanted) for wanted in message.outputs])
        or list(map(RequestedOutput, OUTPUT_NAMES)),
        timeout_s=None if timeout is None else check_timeout_s(timeout),
    )


def write_answer(
    outputs: Sequence[OutputTensor], *, model: str, version: str, identity: str
) -> pb.ModelInferResponse:
    """The message with these outputs, all of them raw."""
    return pb.ModelInferResponse(
        model_name=model,
        model_version=version,
        id=identity,
        outputs=[
            pb.ModelInferResponse.InferOutputTensor(
                name=output.name, datatype=output.datatype, shape=output.shape
            )
            for output in outputs
        ],
        raw_output_contents=[output.raw() for output in outputs],
    )


def _input(
    tensor: pb.ModelInferRequest.InferInputTensor, content: memoryview | Sequence[bytes] | Sequence[object]
) -> InputTensor:
    if "shared_memory_region" in tensor.parameters:
        raise InvalidTensor("input " + _NO_SHARED_MEMORY.format(name=tensor.name))
    return InputTensor(tensor.name, tensor.datatype, list(tensor.shape), content)


def _contents(tensor: pb.ModelInferRequest.InferInputTensor) -> Sequence[bytes] | Sequence[object]:
    """Of the list that belongs to the datatype; another datatype is refused before that is looked at."""
    contents = tensor.contents
    return list(contents.bytes_contents) if tensor.datatype == "BYTES" else contents.uint_contents


def _output(wanted: pb.ModelInferRequest.InferRequestedOutputTensor) -> RequestedOutput:
    parameters = _values(wanted.parameters)
    if "shared_memory_region" in parameters:
        raise InvalidTensor("output " + _NO_SHARED_MEMORY.format(name=wanted.name))
    classes = parameters.get("classification")
    return RequestedOutput(check_output(wanted.name), 0 if classes is None else check_classes(classes))


def _values(parameters: Mapping[str, pb.InferParameter]) -> dict[str, object]:
    """Parameters by name, without their wrapping; None for one without a value."""
    found: dict[str, object] = {}
    for name, parameter in parameters.items():
        choice = parameter.WhichOneof("parameter_choice")
        found[name] = None if choice is None else getattr(parameter, choice)
    return found
