"""The hot routes of the protocols in the OpenAPI document."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from service.api.documentation import (
    HEADER_PARAMETERS,
    HOT_REASONS,
    RESPONSE_HEADERS,
    Json,
    Operation,
    problem_responses,
    reference,
)
from service.api.protocol.documents import (
    InferRequestBody,
    InferResponseBody,
    InstancesRequest,
    InstancesResponse,
)

_BINARY: Final[Json] = {
    "schema": {"type": "string", "format": "binary"},
    "description": "JSON, then the raw tensors; `Inference-Header-Content-Length` is the length of the JSON.",
}
_LENGTH: Final[Json] = {
    "name": "Inference-Header-Content-Length",
    "in": "header",
    "required": False,
    "description": "Bytes of JSON at the beginning of the body; what follows are raw tensors.",
    "schema": {"type": "integer", "minimum": 1},
}


def protocol_operations() -> Iterator[Operation]:
    """Inference by the Open Inference Protocol and by TensorFlow Serving's, of a model and of a version."""
    for version in ("", "/versions/{version}"):
        yield Operation(
            f"/v2/models/{{model}}{version}/infer",
            _infer(version),
            ((InferRequestBody, "validation"), (InferResponseBody, "serialization")),
        )
    for version in ("", "/versions/{version}"):
        yield Operation(
            f"/v1/models/{{model}}{version}:predict",
            _predict(version),
            ((InstancesRequest, "validation"), (InstancesResponse, "serialization")),
        )


def _infer(version: str) -> Json:
    return {
        "tags": ["open inference protocol"],
        "operationId": f"infer{_suffix(version)}",
        "summary": "Tensors in, tensors out",
        "description": "Data in JSON, or behind it in binary, in both directions. An error of one instance "
        "is the whole request's.",
        "parameters": [*_path_parameters(version), _LENGTH, *HEADER_PARAMETERS],
        "requestBody": {
            "required": True,
            "content": {
                "application/json": {"schema": reference(InferRequestBody)},
                "application/octet-stream": _BINARY,
            },
        },
        "responses": {
            "200": {
                "description": "The outputs that were wanted.",
                "headers": {
                    **RESPONSE_HEADERS,
                    "Inference-Header-Content-Length": {
                        "description": _LENGTH["description"],
                        "schema": _LENGTH["schema"],
                    },
                },
                "content": {
                    "application/json": {"schema": reference(InferResponseBody)},
                    "application/octet-stream": _BINARY,
                },
            },
            **_problems(),
        },
    }


def _predict(version: str) -> Json:
    return {
        "tags": ["tensorflow serving"],
        "operationId": f"predictInstances{_suffix(version)}",
        "summary": "Instances in, probabilities out",
        "description": "The row form. An error of one instance is the whole request's.",
        "parameters": [*_path_parameters(version), *HEADER_PARAMETERS],
        "requestBody": {
            "required": True,
            "content": {"application/json": {"schema": reference(InstancesRequest)}},
        },
        "responses": {
            "200": {
                "description": "The probabilities of each instance, in order.",
                "headers": RESPONSE_HEADERS,
                "content": {"application/json": {"schema": reference(InstancesResponse)}},
            },
            **_problems(),
        },
    }


def _suffix(version: str) -> str:
    return "Version" if version else ""


def _problems() -> Json:
    return {str(status): response for status, response in problem_responses(*HOT_REASONS).items()}


def _path_parameters(version: str) -> list[Json]:
    names = ["model", *(["version"] if version else [])]
    return [{"name": name, "in": "path", "required": True, "schema": {"type": "string"}} for name in names]
