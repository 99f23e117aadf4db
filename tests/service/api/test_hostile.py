"""Whatever a client sends, it hears of its own mistake, and nothing breaks."""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Iterator
from pathlib import Path

import httpx
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.app import Application
from service.schemas import PredictResponse, Problem
from service.settings import Settings
from tests.model_files import TinyModel, png
from tests.service.api.test_multipart import encode

IMAGE = png(TinyModel.make().image(1))


@st.composite
def damaged(draw: st.DrawFn) -> bytes:
    """An image with something cut out, put in or turned over."""
    start = draw(st.integers(0, len(IMAGE)))
    end = draw(st.integers(start, len(IMAGE)))
    return IMAGE[:start] + draw(st.binary(max_size=20)) + IMAGE[end:]


pieces = st.one_of(damaged(), st.just(IMAGE), st.binary(max_size=100))
texts = st.one_of(pieces.map(lambda data: base64.b64encode(data).decode()), st.text(max_size=40))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=10),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
)
bodies = st.one_of(
    pieces,
    st.lists(texts, max_size=4).map(lambda images: orjson.dumps({"images": images})),
    json_values.map(orjson.dumps),
    st.lists(st.tuples(st.none() | st.just(b"x"), pieces), max_size=4).map(encode),
)
content_types = st.sampled_from(
    ["image/png", "application/json", "multipart/form-data; boundary=B0undary", "multipart/form-data", ""]
) | st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=30)
header_values = st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20)
queries = st.text(st.sampled_from("modelversiontop_k=&1%2Fé;+ "), max_size=20)


@pytest.fixture(scope="module")
def loop() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


@pytest.fixture(scope="module")
def application(loop: asyncio.Runner, models: Path) -> Iterator[Application]:
    running = Application(Settings(repository=models, default_model="tiny", threads=1, max_body_bytes=4096))
    loop.run(running.load())
    yield running
    loop.run(running.close(grace_s=5))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(bodies, content_types, queries, header_values, header_values)
def test_every_request_gets_predictions_or_a_problem_of_its_own(
    loop: asyncio.Runner,
    application: Application,
    body: bytes,
    content_type: str,
    query: str,
    timeout: str,
    request_id: str,
) -> None:
    headers = {"content-type": content_type, "x-request-timeout-ms": timeout, "x-request-id": request_id}
    for kept in (headers, {"content-type": content_type}):
        response = loop.run(_post(application, body, kept, query if kept is headers else ""))
        if response.status_code == 200:
            PredictResponse.model_validate(response.json())
        else:
            assert 400 <= Problem.model_validate(response.json()).status < 500
    assert application.repository.resolve("tiny").batcher.in_use == 0
    assert application.metrics.inflight_requests.value == 0


async def _post(
    application: Application, body: bytes, headers: dict[str, str], query: str, path: str = "/predict"
) -> httpx.Response:
    transport = httpx.ASGITransport(application)
    async with (
        asyncio.timeout(10),
        httpx.AsyncClient(transport=transport, base_url="http://service") as client,
    ):
        return await client.post(path, content=body, headers=headers, params=query)


@pytest.mark.parametrize("digits", [19, 4301, 16_000])
def test_a_number_of_any_length_is_no_more_than_a_wrong_number(
    loop: asyncio.Runner, application: Application, digits: int
) -> None:
    number = "9" * digits
    for headers, query, path in (
        ({}, f"top_k={number}", "/predict"),
        ({}, f"version={number}", "/predict"),
        ({"x-request-timeout-ms": number}, "", "/predict"),
        ({"inference-header-content-length": number}, "", "/v2/models/tiny/infer"),
    ):
        response = loop.run(_post(application, IMAGE, headers, query, path))
        assert response.status_code in (400, 404)
        Problem.model_validate(response.json())
