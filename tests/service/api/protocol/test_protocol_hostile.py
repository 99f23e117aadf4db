"""Whatever comes in the protocols' forms, the client hears of its own mistake, and nothing breaks."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import orjson
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from service.api.protocol.documents import InstancesResponse
from service.app import Application
from service.schemas import Problem
from service.settings import Settings
from tests.model_files import TinyModel
from tests.service.api.protocol.wire import LENGTH, binary_request, pixels_input, tensors_of

PIXELS = TinyModel.make().image(1)[np.newaxis]
JSON = orjson.dumps({"inputs": [pixels_input(PIXELS)]})
BINARY: dict[str, Any] = binary_request("images", "UINT8", PIXELS.shape, PIXELS.tobytes())
V2, V1 = "/v2/models/tiny/infer", "/v1/models/tiny:predict"

V2_KEYS = ["inputs", "outputs", "name", "datatype", "shape", "data", "parameters", "id"]
V2_PARAMETERS = ["binary_data_size", "classification", "binary_data", "binary_data_output", "timeout"]
V1_KEYS = ["instances", "b64", "images", "signature_name"]
keys = st.sampled_from([*V2_KEYS, *V2_PARAMETERS, *V1_KEYS])
leaves = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.sampled_from(["images", "UINT8", "BYTES", "logits", "probabilities", "iVBORw0KGgo="])
    | st.text(st.characters(exclude_categories=["Cs"]), max_size=10)
)
values = st.recursive(
    leaves,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(keys, inner, max_size=5),
    max_leaves=20,
)
shapes = st.just([1, 8, 8, 1]) | st.just([1]) | st.lists(st.integers(-2, 70), max_size=5)
inputs = st.fixed_dictionaries(
    {
        "name": st.just("images"),
        "datatype": st.sampled_from(["UINT8", "BYTES"]) | leaves,
        "shape": shapes | values,
    },
    optional={"data": values, "parameters": st.dictionaries(keys, values, max_size=2) | values},
)
requests = st.fixed_dictionaries(
    {"inputs": st.lists(inputs, max_size=2) | values},
    optional={"outputs": values, "parameters": values, "id": values, "instances": values},
)
lengths = st.integers(-5, 400).map(str) | st.text(
    st.characters(min_codepoint=33, max_codepoint=126), max_size=8
)


@st.composite
def cut_up(draw: st.DrawFn) -> bytes:
    """A right body with something cut out and put in."""
    body: bytes = draw(st.sampled_from([JSON, BINARY["content"]]))
    start = draw(st.integers(0, len(body)))
    end = draw(st.integers(start, len(body)))
    return body[:start] + draw(st.binary(max_size=10)) + body[end:]


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


def answer(
    loop: asyncio.Runner, application: Application, path: str, body: bytes, headers: dict[str, str]
) -> httpx.Response:
    """The response, after checking that it is one the client can understand, and that nothing is left."""

    async def ask() -> httpx.Response:
        transport = httpx.ASGITransport(application)
        async with (
            asyncio.timeout(10),
            httpx.AsyncClient(transport=transport, base_url="http://service") as client,
        ):
            return await client.post(path, content=body, headers=headers)

    response = loop.run(ask())
    if response.status_code != 200:
        assert 400 <= Problem.model_validate(response.json()).status < 500
    elif path == V2:
        tensors_of(response)
    else:
        InstancesResponse.model_validate(response.json())
    assert application.repository.resolve("tiny").batcher.in_use == 0
    assert application.metrics.inflight_requests.value == 0
    return response


def test_the_bodies_that_are_cut_up_are_right_as_a_whole(
    loop: asyncio.Runner, application: Application
) -> None:
    assert answer(loop, application, V2, JSON, {}).status_code == 200
    assert answer(loop, application, V2, BINARY["content"], BINARY["headers"]).status_code == 200


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(cut_up(), lengths | st.just(BINARY["headers"][LENGTH]) | st.none())
def test_any_binary_header_is_answered(
    loop: asyncio.Runner, application: Application, body: bytes, length: str | None
) -> None:
    answer(loop, application, V2, body, {} if length is None else {LENGTH: length})


@settings(max_examples=200, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(requests | values, st.sampled_from([V2, V1]))
def test_any_json_is_answered(
    loop: asyncio.Runner, application: Application, body: object, path: str
) -> None:
    answer(loop, application, path, orjson.dumps(body), {})


@pytest.mark.parametrize("path", [V2, V1])
def test_deep_nesting_is_answered(loop: asyncio.Runner, application: Application, path: str) -> None:
    for key in (b'{"inputs":', b'{"instances":'):
        assert answer(loop, application, path, key + b"[" * 1500 + b"]" * 1500 + b"}", {}).status_code == 400
