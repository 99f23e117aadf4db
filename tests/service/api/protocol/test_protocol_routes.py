"""Health, metadata and status, as the clients of the protocols ask for them."""

from __future__ import annotations

from pathlib import Path

import httpx
import pytest

from service import __version__
from service.access import Scope, make_key
from service.app import Application
from service.errors import Reason
from service.settings import Settings
from tests.model_files import write_model
from tests.service.api.conftest import TINY, Running, Start
from tests.service.api.test_predict import problem_of


async def test_the_server_says_what_it_is(service: Running) -> None:
    answer = (await service.client.get("/v2")).json()
    assert (answer["name"], answer["version"]) == ("foldserve", __version__)
    assert {"binary_tensor_data", "classification"} <= set(answer["extensions"])


async def test_health_follows_the_life_of_the_application(models: Path) -> None:
    application = Application(Settings(repository=models, default_model="tiny"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://x") as client:
        assert (await client.get("/v2/health/live")).json() == {"live": True}
        problem_of(await client.get("/v2/health/ready"), Reason.NOT_READY)
        problem_of(await client.get("/v2/models/tiny/ready"), Reason.NOT_READY)
        await application.load()
        assert (await client.get("/v2/health/ready")).json() == {"ready": True}
        application.drain()
        problem_of(await client.get("/v2/health/ready"), Reason.SHUTTING_DOWN)
        await application.close(grace_s=1)
        problem_of(await client.get("/v2/models/tiny/ready"), Reason.NOT_READY)


@pytest.mark.parametrize("path", ["/v2/models/tiny", "/v2/models/tiny/versions/1"])
async def test_the_metadata_is_the_graphs(service: Running, path: str) -> None:
    assert (await service.client.get(path)).json() == {
        "name": "tiny",
        "versions": ["1"],
        "platform": "onnxruntime_onnx",
        "inputs": [{"name": "images", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}],
        "outputs": [
            {"name": "logits", "datatype": "FP32", "shape": [-1, 3]},
            {"name": "probabilities", "datatype": "FP32", "shape": [-1, 3]},
        ],
    }


@pytest.mark.parametrize("path", ["/v2/models/tags/ready", "/v2/models/tags/versions/1/ready"])
async def test_a_model_that_predicts_is_ready(service: Running, path: str) -> None:
    assert (await service.client.get(path)).json() == {"name": "tags", "ready": True}


@pytest.mark.parametrize("path", ["/v1/models/tiny", "/v1/models/tiny/versions/1"])
async def test_the_status_is_tensorflow_servings_and_kserves(service: Running, path: str) -> None:
    assert (await service.client.get(path)).json() == {
        "name": "tiny",
        "ready": True,
        "model_version_status": [
            {"version": "1", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
        ],
    }


@pytest.mark.parametrize(
    "path",
    [
        "/v2/models/none",
        "/v2/models/tiny/versions/2",
        "/v2/models/none/ready",
        "/v1/models/none",
        "/v1/models/x:y",
    ],
)
async def test_unknown_models_and_versions_are_not_found(service: Running, path: str) -> None:
    problem_of(await service.client.get(path), Reason.MODEL_NOT_FOUND)


@pytest.mark.parametrize("path", ["/v2/models/tiny/infer", "/v1/models/tiny:predict"])
async def test_inference_is_a_post(service: Running, path: str) -> None:
    response = await service.client.delete(path)
    problem_of(response, Reason.METHOD_NOT_ALLOWED)
    assert response.headers["allow"] == "POST"


@pytest.mark.parametrize("path", ["/v2/", "/v2/models", "/v2/models/", "/v2/models/tiny/infer/x", "/v1"])
async def test_there_is_nothing_beside_them(service: Running, path: str) -> None:
    problem_of(await service.client.get(path), Reason.ROUTE_NOT_FOUND)


@pytest.fixture
def admin_keys(tmp_path: Path) -> tuple[Path, dict[str, str]]:
    """A key file, and the header of a key that may change what is served."""
    path = tmp_path / "keys"
    secret, line = make_key("ops", [Scope.ADMIN])
    path.write_text(line)
    return path, {"x-api-key": secret}


async def test_the_index_lists_every_version(start: Start, tmp_path: Path) -> None:
    write_model(tmp_path, model=TINY, version="1")
    write_model(tmp_path, model=TINY, version="2", fault="wrong_logits")
    async with start(repository=tmp_path) as service:
        index = await service.client.post("/v2/repository/index")
        ready = await service.client.post("/v2/repository/index", json={"ready": True})
    bad, good = index.json()
    assert good == {"name": "tiny", "version": "1", "state": "READY", "reason": ""}
    assert (bad["version"], bad["state"]) == ("2", "UNAVAILABLE")
    assert "logits differ" in bad["reason"]
    assert ready.json() == [good]


async def test_a_model_is_unloaded_and_loaded_again(
    start: Start, admin_keys: tuple[Path, dict[str, str]], tmp_path: Path
) -> None:
    path, key = admin_keys
    for name in ("tiny", "other"):
        write_model(tmp_path / "models", model=TINY, name=name)
    async with start(api_keys_file=path, repository=tmp_path / "models") as service:
        client, route = service.client, "/v2/repository/models/other"
        assert (await client.post(f"{route}/unload", headers=key)).status_code == 200
        problem_of(await client.get("/v2/models/other/ready"), Reason.MODEL_NOT_FOUND)
        assert (await client.post(f"{route}/load", json={"parameters": {}}, headers=key)).status_code == 200
        assert (await client.get("/v2/models/other/ready")).status_code == 200
        wanted = {"parameters": {"config": "{}"}}
        problem_of(await client.post(f"{route}/load", json=wanted, headers=key), Reason.INVALID_PARAMETER)
        unknown = await client.post("/v2/repository/models/none/load", headers=key)
        problem_of(unknown, Reason.MODEL_NOT_FOUND)


async def test_loading_needs_a_key_of_its_own(
    start: Start, admin_keys: tuple[Path, dict[str, str]], service: Running
) -> None:
    route = "/v2/repository/models/tiny/load"
    problem_of(await service.client.post(route), Reason.FORBIDDEN)
    async with start(api_keys_file=admin_keys[0]) as keyed:
        problem_of(await keyed.client.post(route), Reason.UNAUTHENTICATED)


async def test_with_a_key_file_inference_needs_a_key_and_health_none(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    secret, line = make_key("web", [Scope.PREDICT])
    path.write_text(line)
    async with start(api_keys_file=path) as service:
        for route in ("/v2/models/tiny/infer", "/v1/models/tiny:predict"):
            problem_of(await service.client.post(route, content=b"{"), Reason.UNAUTHENTICATED)
            keyed = await service.client.post(route, content=b"{", headers={"x-api-key": secret})
            problem_of(keyed, Reason.MALFORMED_BODY)
        for route in ("/v2", "/v2/health/ready", "/v2/models/tiny", "/v1/models/tiny"):
            assert (await service.client.get(route)).status_code == 200
