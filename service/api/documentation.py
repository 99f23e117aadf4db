"""The OpenAPI document. FastAPI writes it for its own routes; the hot route is described here.

The schemas are those of `service.schemas`; ``docs/openapi.json`` is a copy that a test compares.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.api.problems import PROBLEM_MEDIA_TYPE, STATUSES, problem_title
from service.errors import Reason
from service.schemas import PredictRequest, PredictResponse, Problem

# JSON, whose shape only OpenAPI's own schema describes.
Json: TypeAlias = dict[str, Any]

_REF: Final = "#/components/schemas/{model}"
_BINARY: Final[Json] = {"schema": {"type": "string", "format": "binary"}}

# Of the hot route; every reason that it can end with.
_PREDICT_REASONS: Final = (
    Reason.MALFORMED_BODY,
    Reason.INVALID_PARAMETER,
    Reason.UNAUTHENTICATED,
    Reason.FORBIDDEN,
    Reason.MODEL_NOT_FOUND,
    Reason.SLOW_CLIENT,
    Reason.BODY_TOO_LARGE,
    Reason.TOO_MANY_PIXELS,
    Reason.TOO_MANY_IMAGES,
    Reason.UNSUPPORTED_MEDIA_TYPE,
    Reason.INVALID_INSTANCE,
    Reason.UNDECODABLE_IMAGE,
    Reason.RATE_LIMITED,
    Reason.HEADERS_TOO_LARGE,
    Reason.INFERENCE_FAILED,
    Reason.OVERLOADED,
    Reason.NOT_READY,
    Reason.SHUTTING_DOWN,
    Reason.DEADLINE_EXCEEDED,
)


def problem_responses(*reasons: Reason) -> dict[int | str, Json]:
    """The documented error responses for these reasons, by status."""
    by_status: dict[int, list[Reason]] = {}
    for reason in reasons:
        by_status.setdefault(STATUSES[reason], []).append(reason)
    return {status: _problem_response(status, by_status[status]) for status in sorted(by_status)}


def _problem_response(status: int, reasons: list[Reason]) -> Json:
    response: Json = {
        "description": ". ".join(f"`{reason.value}`: {problem_title(reason)}" for reason in reasons),
        "content": {PROBLEM_MEDIA_TYPE.decode(): {"schema": _reference(Problem)}},
    }
    if status in (429, 503):
        response["headers"] = {
            "Retry-After": {"description": "Whole seconds.", "schema": {"type": "integer", "minimum": 1}}
        }
    return response


def add_predict(document: Json) -> Json:
    """FastAPI's document, with the hot route and its schemas."""
    _, definitions = models_json_schema(
        [(PredictRequest, "validation"), (PredictResponse, "serialization"), (Problem, "serialization")],
        ref_template=_REF,
    )
    schemas = {**document.get("components", {}).get("schemas", {}), **definitions["$defs"]}
    return {
        **document,
        "paths": {"/predict": {"post": _predict_operation()}, **document["paths"]},
        "components": {**document.get("components", {}), "schemas": dict(sorted(schemas.items()))},
    }


def _predict_operation() -> Json:
    success = {
        "description": "A prediction or an error for each image, in order.",
        "headers": _RESPONSE_HEADERS,
        "content": {"application/json": {"schema": _reference(PredictResponse)}},
    }
    problems = {str(status): response for status, response in problem_responses(*_PREDICT_REASONS).items()}
    return {
        "tags": ["predict"],
        "operationId": "predict",
        "summary": "Classify one or more images",
        "description": "The bytes decide what an image is, not the declared type. In a request of several "
        "images a bad one gets an error in its place; if all are bad, the answer is the first one's error.",
        "parameters": _PARAMETERS,
        "requestBody": {"required": True, "content": _request_forms()},
        "responses": {"200": success, **problems},
    }


def _request_forms() -> Json:
    form: Json = {
        "type": "object",
        "description": "Every part with a file name is an image.",
        "properties": {
            "images": {"type": "array", "minItems": 1, "items": {"type": "string", "format": "binary"}}
        },
        "required": ["images"],
    }
    return {
        "image/*": _BINARY,
        "application/octet-stream": _BINARY,
        "multipart/form-data": {"schema": form},
        "application/json": {"schema": _reference(PredictRequest)},
    }


def _reference(model: type[BaseModel]) -> Json:
    return {"$ref": _REF.format(model=model.__name__)}


def _parameter(place: str, name: str, description: str, schema: Mapping[str, object]) -> Json:
    return {"name": name, "in": place, "required": False, "description": description, "schema": dict(schema)}


_PARAMETERS: Final = [
    _parameter("query", "model", "Which model; without it the default one.", {"type": "string"}),
    _parameter("query", "version", "Which version of it; else the one that serves.", {"type": "string"}),
    _parameter(
        "query",
        "top_k",
        "How many classes `top` lists; at most as many as there are.",
        {"type": "integer", "minimum": 1, "maximum": 1000},
    ),
    _parameter(
        "header",
        "X-Request-Timeout-Ms",
        "From when on the answer is worth nothing. Work that cannot meet it is refused or not started.",
        {"type": "integer", "minimum": 1, "maximum": 3_600_000},
    ),
    _parameter(
        "header",
        "X-Request-ID",
        "Echoed if it is well formed; else one is made.",
        {"type": "string", "pattern": "^[A-Za-z0-9._:/+=@-]{1,128}$"},
    ),
]
_RESPONSE_HEADERS: Final[Json] = {
    "X-Request-ID": {"description": "Names this exchange in the logs.", "schema": {"type": "string"}},
    "Server-Timing": {
        "description": "Milliseconds spent in decode, queue, inference and in total.",
        "schema": {"type": "string"},
    },
}
