"""The OpenAPI document. FastAPI writes it for its own routes; the hot routes are added by hand.

The schemas are those of `service.schemas` and of `service.api.protocol.documents`; ``docs/openapi.json`` is a
copy that a test compares.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, Literal, TypeAlias

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from service.api.problems import PROBLEM_MEDIA_TYPE, STATUSES, problem_title
from service.errors import Reason
from service.schemas import PredictRequest, PredictResponse, Problem

Mode: TypeAlias = Literal["validation", "serialization"]
# JSON, whose shape only OpenAPI's own schema describes.
Json: TypeAlias = dict[str, Any]

# FastAPI's own words for what `InvalidParameter` says here.
_VALIDATION_SCHEMAS: Final = ("HTTPValidationError", "ValidationError")
_REF: Final = "#/components/schemas/{model}"
_SEPARATOR: Final = ". "
_BINARY: Final[Json] = {"schema": {"type": "string", "format": "binary"}}

# Every reason that a hot route can end with.
HOT_REASONS: Final = (
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


# Whatever is asked: of the connection, and of what nobody thought of.
_EVERYWHERE: Final = (
    Reason.MALFORMED_BODY,
    Reason.SLOW_CLIENT,
    Reason.HEADERS_TOO_LARGE,
    Reason.INFERENCE_FAILED,
    Reason.OVERLOADED,
)
_OF_KEYS: Final = (Reason.UNAUTHENTICATED, Reason.FORBIDDEN, Reason.RATE_LIMITED)
_OF_PARAMETERS: Final = (Reason.INVALID_PARAMETER,)
_OF_BODIES: Final = (Reason.INVALID_PARAMETER, Reason.BODY_TOO_LARGE)

# Method and path of a route → whether a key may be needed.
NeedsKey: TypeAlias = Callable[[str, str], bool]


def problem_responses(*reasons: Reason) -> dict[int | str, Json]:
    """The documented error responses for these reasons, by status."""
    by_status: dict[int, list[str]] = {}
    for reason in reasons:
        text = f"`{reason.value}`: {problem_title(reason)}"
        by_status.setdefault(STATUSES[reason], []).append(text)
    return {status: _problem_response(status, by_status[status]) for status in sorted(by_status)}


def _problem_response(status: int, texts: Sequence[str]) -> Json:
    response: Json = {
        "description": _SEPARATOR.join(texts),
        "content": {PROBLEM_MEDIA_TYPE.decode(): {"schema": reference(Problem)}},
    }
    if status in (429, 503):
        response["headers"] = {
            "Retry-After": {"description": "Whole seconds.", "schema": {"type": "integer", "minimum": 1}}
        }
    return response


@dataclass(frozen=True, slots=True)
class Operation:
    """A hot route in the document.

    Attributes:
        path: Its template.
        description: OpenAPI's "operation object" of its POST.
        models: The schemas that it refers to, each as it is read or as it is written.
    """

    path: str
    description: Json
    models: tuple[tuple[type[BaseModel], Mode], ...]


def add_operations(document: Json, operations: Sequence[Operation], needs_key: NeedsKey) -> Json:
    """FastAPI's document, with the hot routes before the others, their schemas, and all that is refused."""
    _add_refusals(document, needs_key)
    models = {model: mode for operation in operations for model, mode in operation.models}
    _, definitions = models_json_schema([*models.items(), (Problem, "serialization")], ref_template=_REF)
    schemas = {**document.get("components", {}).get("schemas", {}), **definitions["$defs"]}
    hot = {operation.path: {"post": operation.description} for operation in operations}
    paths = {
        path: {**hot.get(path, {}), **document["paths"].get(path, {})} for path in [*hot, *document["paths"]]
    }
    return {
        **document,
        "paths": paths,
        "components": {**document.get("components", {}), "schemas": dict(sorted(schemas.items()))},
    }


def _add_refusals(document: Json, needs_key: NeedsKey) -> None:
    """Every refusal of FastAPI's routes, in place of the 422 that it believes in and that there is not."""
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            reasons = [*_EVERYWHERE, *(_OF_KEYS if needs_key(method.upper(), path) else ())]
            if "requestBody" in operation:
                reasons += _OF_BODIES
            elif any(parameter["in"] == "query" for parameter in operation.get("parameters", ())):
                reasons += _OF_PARAMETERS
            operation["responses"] = _with_refusals(operation["responses"], reasons)
    for name in _VALIDATION_SCHEMAS:
        document.get("components", {}).get("schemas", {}).pop(name, None)


def _with_refusals(responses: Json, reasons: Sequence[Reason]) -> Json:
    merged = {status: each for status, each in responses.items() if status != "422"}
    for status, response in problem_responses(*reasons).items():
        own = merged.get(str(status), {"description": ""})["description"].split(_SEPARATOR)
        texts = dict.fromkeys([*filter(None, own), *response["description"].split(_SEPARATOR)])
        merged[str(status)] = _problem_response(int(status), [*texts])
    return dict(sorted(merged.items()))


def predict_operation() -> Operation:
    """``/predict`` in the document."""
    return Operation(
        "/predict",
        _predict_description(),
        ((PredictRequest, "validation"), (PredictResponse, "serialization")),
    )


def _predict_description() -> Json:
    success = {
        "description": "A prediction or an error for each image, in order.",
        "headers": RESPONSE_HEADERS,
        "content": {"application/json": {"schema": reference(PredictResponse)}},
    }
    problems = {str(status): response for status, response in problem_responses(*HOT_REASONS).items()}
    return {
        "tags": ["predict"],
        "operationId": "predict",
        "summary": "Classify one or more images",
        "description": "The bytes decide what an image is, not the declared type. In a request of several "
        "images a bad one gets an error in its place; if all are bad, the answer is the first one's error.",
        "parameters": [*_PREDICT_PARAMETERS, *HEADER_PARAMETERS],
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
        "application/json": {"schema": reference(PredictRequest)},
    }


def reference(model: type[BaseModel]) -> Json:
    """A schema, by its name."""
    return {"$ref": _REF.format(model=model.__name__)}


def _parameter(place: str, name: str, description: str, schema: Mapping[str, object]) -> Json:
    return {"name": name, "in": place, "required": False, "description": description, "schema": dict(schema)}


_PREDICT_PARAMETERS: Final = [
    _parameter("query", "model", "Which model; without it the default one.", {"type": "string"}),
    _parameter("query", "version", "Which version of it; else the one that serves.", {"type": "string"}),
    _parameter(
        "query",
        "top_k",
        "How many classes `top` lists; at most as many as there are.",
        {"type": "integer", "minimum": 1, "maximum": 1000},
    ),
]
HEADER_PARAMETERS: Final = [
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
RESPONSE_HEADERS: Final[Json] = {
    "X-Request-ID": {"description": "Names this exchange in the logs.", "schema": {"type": "string"}},
    "Server-Timing": {
        "description": "Milliseconds spent in decode, queue, inference and in total.",
        "schema": {"type": "string"},
    },
}
