"""The routes of operators: who may, what they answer, and what they change."""

from __future__ import annotations

import json
from pathlib import Path

import httpx
import pytest

from service.access import Scope, make_key
from service.errors import Reason
from tests.model_files import write_model
from tests.service.api.conftest import Start


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A repository with two versions of one model."""
    for version in ("1", "2"):
        write_model(tmp_path / "models", version=version)
    return tmp_path / "models"


@pytest.fixture
def keys(tmp_path: Path) -> tuple[Path, dict[Scope, dict[str, str]]]:
    """A file of keys, and the headers of one key for each scope."""
    made = {scope: make_key(scope.value, [scope]) for scope in Scope}
    path = tmp_path / "keys"
    path.write_text("".join(f"{line}\n" for _, line in made.values()))
    return path, {scope: {"x-api-key": secret} for scope, (secret, _) in made.items()}


CHANGES: list[tuple[str, str, object]] = [
    ("POST", "/models/tiny/rollback", None),
    ("PUT", "/models/tiny/serving", {}),
    ("POST", "/v2/repository/models/tiny/load", None),
    ("POST", "/v2/repository/models/tiny/unload", None),
]


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
async def test_nobody_changes_anything_where_there_are_no_keys(
    start: Start, root: Path, method: str, path: str, body: object
) -> None:
    async with start(repository=root) as running:
        answer = await running.client.request(method, path, json=body)
        assert (answer.status_code, answer.json()["reason"]) == (403, Reason.FORBIDDEN)
        assert not (root / "tiny" / "serving.json").exists()


@pytest.mark.parametrize(("method", "path", "body"), CHANGES)
async def test_a_change_needs_its_own_scope(
    start: Start,
    root: Path,
    keys: tuple[Path, dict[Scope, dict[str, str]]],
    method: str,
    path: str,
    body: object,
) -> None:
    path_of_keys, headers = keys
    async with start(repository=root, api_keys_file=path_of_keys) as running:
        assert (await running.client.request(method, path, json=body)).status_code == 401
        for scope in (Scope.PREDICT, Scope.METRICS):
            answer = await running.client.request(method, path, json=body, headers=headers[scope])
            assert answer.status_code == 403
        answer = await running.client.request(method, path, json=body, headers=headers[Scope.ADMIN])
        assert answer.status_code == 200


async def test_versions_plan_and_rollback(
    start: Start, root: Path, keys: tuple[Path, dict[Scope, dict[str, str]]]
) -> None:
    path_of_keys, headers = keys
    async with start(repository=root, api_keys_file=path_of_keys) as running:
        client: httpx.AsyncClient = running.client
        client.headers.update(headers[Scope.ADMIN])
        document = (await client.get("/models/tiny")).json()
        assert [(line["version"], line["state"], line["roles"]) for line in document["versions"]] == [
            ("2", "READY", ["live"]),
            ("1", "UNAVAILABLE", []),
        ]
        document = (await client.post("/models/tiny/rollback")).json()
        assert document["plan"]["version"] == "1"
        assert json.loads((root / "tiny" / "serving.json").read_text())["version"] == "1"
        answer = await client.post("/models/tiny/rollback", params={"to": "9"})
        assert (answer.status_code, answer.json()["reason"]) == (404, Reason.MODEL_NOT_FOUND)
        answer = await client.put("/models/tiny/serving", json={"canary": {"version": "2", "weight": 2}})
        assert (answer.status_code, answer.json()["reason"]) == (400, Reason.INVALID_PARAMETER)
        answer = await client.put("/models/tiny/serving", json={"aliases": {"mobile": "1"}})
        assert {line["version"]: line["roles"] for line in answer.json()["versions"]} == {
            "2": ["live"],
            "1": ["mobile"],
        }


async def test_what_is_not_there(start: Start, root: Path) -> None:
    async with start(repository=root) as running:
        for path in ("/models/giant", "/models/giant/shadow", "/models/tiny/shadow"):
            answer = await running.client.get(path)
            assert (answer.status_code, answer.json()["reason"]) == (404, Reason.MODEL_NOT_FOUND)


async def test_a_routing_key_keeps_its_version(start: Start, root: Path, image: bytes) -> None:
    (root / "tiny" / "serving.json").write_text('{"canary": {"version": "2", "weight": 0.5}}')
    async with start(repository=root, routing_header="X-Tenant") as running:
        seen: dict[str, set[str]] = {}
        for tenant in [f"t{number}" for number in range(20)] * 2:
            answer = await running.client.post("/predict", content=image, headers={"X-Tenant": tenant})
            seen.setdefault(tenant, set()).add(answer.json()["version"])
        assert all(len(versions) == 1 for versions in seen.values())
        assert set().union(*seen.values()) == {"1", "2"}
