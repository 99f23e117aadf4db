"""The routes that FastAPI answers, and what holds for every route."""

from __future__ import annotations

import asyncio
import logging
from pathlib import Path

import httpx
import pytest
from fastapi import APIRouter

from service import __version__
from service.access import Scope, make_key
from service.app import Application
from service.errors import InferenceFailed, Overloaded, Reason
from service.repository import Repository, ServedModel
from service.settings import Settings
from tests.service.api.conftest import Running, Start
from tests.service.api.test_predict import post, problem_of

GET_ROUTES = ["/", "/livez", "/readyz", "/metrics", "/models", "/docs", "/openapi.json"]


@pytest.mark.parametrize("path", GET_ROUTES)
async def test_get_and_head_agree(service: Running, path: str) -> None:
    answered, headed = await service.client.get(path), await service.client.head(path)
    assert answered.status_code == headed.status_code == 200
    assert answered.headers["content-type"] == headed.headers["content-type"]
    for response in (answered, headed):
        assert response.headers["x-request-id"]
        assert response.headers["server-timing"].startswith("total;dur=")


@pytest.mark.parametrize("path", [*GET_ROUTES, "/predict"])
async def test_other_methods_are_refused_with_the_ones_there_are(service: Running, path: str) -> None:
    response = await service.client.delete(path)
    problem_of(response, Reason.METHOD_NOT_ALLOWED)
    assert ("POST" if path == "/predict" else "GET") in response.headers["allow"]
    options = await service.client.options(path)
    assert (options.status_code, options.headers["allow"]) == (204, f"{response.headers['allow']}, OPTIONS")


@pytest.mark.parametrize("path", ["/nothing", "/predict/", "/predict/x", "/static/", "/v9/models", "/%00"])
async def test_other_paths_are_not_found(service: Running, path: str) -> None:
    problem_of(await service.client.get(path), Reason.ROUTE_NOT_FOUND)
    assert service.metric("foldserve_requests_total", route="unmatched", method="GET", code="404") >= 1


async def test_an_unknown_method_does_not_make_a_label_of_its_own(service: Running) -> None:
    await service.client.request("BREW", "/predict")
    assert service.metric("foldserve_requests_total", route="/predict", method="OTHER", code="405") == 1


async def test_probes_follow_the_life_of_the_application(models: Path) -> None:
    application = Application(Settings(repository=models, default_model="tiny"))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://x") as client:
        assert (await client.get("/livez")).status_code == 200
        problem_of(await client.get("/readyz"), Reason.NOT_READY)
        problem_of(await client.post("/predict", content=b"x"), Reason.NOT_READY)
        assert application.metrics.registry.get_sample_value("foldserve_ready") == 0
        await application.load()
        assert (await client.get("/readyz")).json() == {"status": "ready"}
        assert application.metrics.registry.get_sample_value("foldserve_ready") == 1
        application.drain()
        problem_of(await client.get("/readyz"), Reason.SHUTTING_DOWN)
        assert (await client.get("/livez")).json() == {"status": "alive"}
        await application.close(grace_s=1)
        problem_of(await client.post("/predict", content=b"x"), Reason.SHUTTING_DOWN)


async def test_while_draining_requests_are_still_answered_and_connections_end(
    service: Running, image: bytes
) -> None:
    service.application.drain()
    response = await post(service, content=image)
    assert (response.status_code, response.headers["connection"]) == (200, "close")


async def test_a_hung_engine_turns_both_probes(start: Start, image: bytes) -> None:
    async with start(inference_timeout_s=0.05) as service:
        service.gate.shut()
        problem_of(await post(service, content=image), Reason.INFERENCE_FAILED)
        problem_of(await service.client.get("/livez"), Reason.NOT_READY)
        problem_of(await service.client.get("/readyz"), Reason.NOT_READY)
        problem_of(await post(service, content=image), Reason.NOT_READY)


async def test_metrics_come_in_the_format_asked_for(service: Running) -> None:
    plain = await service.client.get("/metrics")
    assert plain.headers["content-type"].startswith("text/plain; version=0.0.4")
    assert "# EOF" not in plain.text
    accept = "application/openmetrics-text;version=1.0.0,text/plain;q=0.5"
    openmetrics = await service.client.get("/metrics", headers={"accept": accept})
    assert openmetrics.headers["content-type"].startswith("application/openmetrics-text")
    assert openmetrics.text.endswith("# EOF\n")


async def test_an_unexpected_failure_is_logged_whole_and_told_to_nobody(
    service: Running, caplog: pytest.LogCaptureFixture
) -> None:
    router = APIRouter()

    @router.get("/boom")
    async def boom() -> None:
        raise ZeroDivisionError("a secret")

    service.application.framework.include_router(router)
    with caplog.at_level(logging.ERROR):
        response = await service.client.get("/boom")
    problem_of(response, Reason.INFERENCE_FAILED)
    assert "secret" not in response.text
    (record,) = [record for record in caplog.records if record.name == "service.app.journal"]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)
    assert record.__dict__["fields"]["request_id"] == response.headers["x-request-id"]
    assert service.metric("foldserve_rejected_total", reason="inference_failed") == 1


class BrokenRepository(Repository):
    """Has a fault that nobody thought of."""

    def resolve(self, model: str | None = None, version: str | None = None, key: bytes = b"") -> ServedModel:
        raise ZeroDivisionError("a secret")


async def test_an_unexpected_failure_on_the_hot_route_likewise(models: Path, image: bytes) -> None:
    application = Application(Settings(repository=models), BrokenRepository)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(application), base_url="http://x") as client:
        response = await client.post("/predict", content=image)
    problem_of(response, Reason.INFERENCE_FAILED)
    assert "secret" not in response.text


async def test_a_refusal_of_a_framework_route_keeps_its_headers(service: Running) -> None:
    router = APIRouter()

    @router.get("/busy")
    async def busy() -> None:
        raise Overloaded("later", 4.2)

    service.application.framework.include_router(router)
    response = await service.client.get("/busy")
    problem_of(response, Reason.OVERLOADED)
    assert response.headers["retry-after"] == "5"


async def test_the_cause_of_a_failed_batch_is_logged(
    service: Running, image: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    service.gate.error = InferenceFailed("the cause")
    response = await post(service, content=image)
    lines = [record.__dict__.get("fields", {}) for record in caplog.records]
    (line,) = [line for line in lines if line.get("request_id") == response.headers["x-request-id"]]
    assert "the cause" in line["cause"]


async def test_under_another_server_the_lifespan_loads_and_closes(models: Path) -> None:
    application = Application(Settings(repository=models))
    inbox: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    outbox: asyncio.Queue[dict[str, str]] = asyncio.Queue()
    scope = {"type": "lifespan", "asgi": {"version": "3.0"}, "state": {}}
    life = asyncio.create_task(application(scope, inbox.get, outbox.put))  # type: ignore[arg-type]
    async with asyncio.timeout(10):
        await inbox.put({"type": "lifespan.startup"})
        assert (await outbox.get())["type"] == "lifespan.startup.complete"
        assert application.why_not_ready() is None
        await inbox.put({"type": "lifespan.shutdown"})
        assert (await outbox.get())["type"] == "lifespan.shutdown.complete"
        await life
    assert application.why_not_ready() is not None


async def test_with_a_key_file_predictions_and_metrics_need_a_key(
    start: Start, image: bytes, tmp_path: Path
) -> None:
    path = tmp_path / "keys"
    secret, line = make_key("web", [Scope.PREDICT])
    path.write_text(line)
    authorization = {"authorization": f"Bearer {secret}"}
    async with start(api_keys_file=path) as service:
        response = await post(service, content=image)
        problem_of(response, Reason.UNAUTHENTICATED)
        assert response.headers["www-authenticate"] == "Bearer"
        problem_of(await service.client.get("/metrics"), Reason.UNAUTHENTICATED)
        problem_of(await service.client.get("/metrics", headers=authorization), Reason.FORBIDDEN)
        assert (await post(service, content=image, headers=authorization)).status_code == 200
        assert (await service.client.get("/readyz")).status_code == 200


async def test_beyond_the_rate_clients_are_told_when_to_come_back(start: Start, image: bytes) -> None:
    async with start(rate_limit_per_minute=2) as service:
        answers = [await post(service, content=image) for _ in range(3)]
    assert [answer.status_code for answer in answers] == [200, 200, 429]
    problem_of(answers[-1], Reason.RATE_LIMITED)
    assert 1 <= int(answers[-1].headers["retry-after"]) <= 60


async def test_a_format_that_is_switched_off_is_415(start: Start, image: bytes) -> None:
    async with start(image_formats=("jpeg",)) as service:
        problem_of(await post(service, content=image), Reason.UNSUPPORTED_MEDIA_TYPE)


@pytest.mark.parametrize(("settings", "shown"), [({"commit": "0a1b2c3"}, "0a1b2c3"), ({}, "unknown")])
async def test_the_running_code_is_named(settings: dict[str, str], shown: str, start: Start) -> None:
    async with start(**settings) as service:
        assert service.metric("foldserve_build_info", version=__version__, commit=shown) == 1


async def test_tritons_names_are_there_on_request(start: Start, image: bytes) -> None:
    async with start(triton_metrics=True) as service:
        await post(service, content=image)
        text = (await service.client.get("/metrics")).text
    assert 'nv_inference_count{model="tiny",version="1"} 1.0' in text
    assert 'nv_inference_pending_request_count{model="tiny",version="1"} 0.0' in text
    assert 'foldserve_images_total{model="tiny",outcome="predicted",version="1"} 1.0' in text


@pytest.mark.parametrize("path", [*GET_ROUTES, "/predict", "/nothing"])
async def test_pages_of_other_origins_are_told_nothing(service: Running, path: str) -> None:
    asked = {"origin": "https://elsewhere.example", "access-control-request-method": "POST"}
    for method in ("GET", "POST", "OPTIONS"):
        response = await service.client.request(method, path, headers=asked)
        assert not [name for name in response.headers if name.startswith("access-control-")]
