"""The committed OpenAPI document is the one that the service gives."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from service.api.problems import STATUSES
from service.commands import openapi_document
from service.errors import Reason

REFERENCE = Path(__file__).parents[2] / "docs" / "openapi.json"


def _references(node: object) -> set[str]:
    if isinstance(node, dict):
        own = {node["$ref"]} if isinstance(node.get("$ref"), str) else set()
        return own.union(*map(_references, node.values()))
    return set().union(*map(_references, node)) if isinstance(node, list) else set()


def test_reference_is_current() -> None:
    assert REFERENCE.read_text() == openapi_document(), "write it anew: python -m service openapi"


def test_every_schema_referred_to_is_there() -> None:
    document = json.loads(openapi_document())
    there = {f"#/components/schemas/{name}" for name in document["components"]["schemas"]}
    assert _references(document) <= there


def test_predict_documents_its_three_forms_and_every_status_it_gives() -> None:
    operation: dict[str, Any] = json.loads(openapi_document())["paths"]["/predict"]["post"]
    forms = {"image/*", "application/octet-stream", "multipart/form-data", "application/json"}
    assert set(operation["requestBody"]["content"]) == forms
    never = {Reason.ROUTE_NOT_FOUND, Reason.METHOD_NOT_ALLOWED}
    wanted = {str(STATUSES[reason]) for reason in set(Reason) - never}
    assert set(operation["responses"]) == wanted | {"200"}
