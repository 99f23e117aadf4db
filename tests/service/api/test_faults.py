"""What clients and probes see when an engine hangs, dies or fails."""

from __future__ import annotations

import asyncio

from service.errors import Reason
from tests.service.api.conftest import Running, Start
from tests.service.api.test_predict import post, problem_of

PATIENCE_S = 10.0


async def test_a_hanging_engine_is_never_silent(start: Start, image: bytes) -> None:
    async with start(inference_timeout_s=0.05) as service:
        service.gate.shut()
        waiting = [asyncio.create_task(post(service, content=image)) for _ in range(3)]
        async with asyncio.timeout(PATIENCE_S):
            for response in await asyncio.gather(*waiting):
                problem_of(response, Reason.INFERENCE_FAILED)
        for path in ("/livez", "/readyz"):
            assert (await service.client.get(path)).status_code == 503
        problem_of(await post(service, content=image), Reason.NOT_READY)
        assert service.metric("foldserve_ready") == 0
        key = {"model": "tiny", "version": "1", "outcome": "inference_failed"}
        assert service.metric("foldserve_images_total", **key) == 3


async def test_an_engine_that_fails_once_goes_on(service: Running, image: bytes) -> None:
    service.gate.error = MemoryError("no room for the activations")
    problem_of(await post(service, content=image), Reason.INFERENCE_FAILED)
    service.gate.error = None
    assert (await post(service, content=image)).status_code == 200
    assert (await service.client.get("/livez")).status_code == 200
    assert (await service.client.get("/readyz")).status_code == 200
