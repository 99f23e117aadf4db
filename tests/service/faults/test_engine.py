"""The engine fails, hangs, or is lost."""

from __future__ import annotations

import asyncio
import time

import pytest

from service.errors import Reason
from tests.service.faults.conftest import Watch, Watched, reason_of
from tests.service.faults.faulty import Order

pytestmark = pytest.mark.e2e


async def test_a_failing_batch_fails_alone(watch: Watch) -> None:
    orders = (Order.FAIL, Order.RUN_OUT_OF_MEMORY)
    ids = []
    async with watch() as watched:
        for order in orders:
            watched.order(order)
            failed = await watched.predict()
            assert (failed.status_code, reason_of(failed)) == (500, Reason.INFERENCE_FAILED)
            assert "allocate" not in failed.text
            assert (await watched.predict()).status_code == 200
            assert await watched.probe("/livez") == await watched.probe("/readyz") == 200
            ids.append(failed.headers["x-request-id"])
        assert await watched.outcomes("inference_failed") == await watched.outcomes("predicted") == 2
        log = await watched.end()
    assert log.count("a batch of 1 failed") == 2
    assert all(request_id in log for request_id in ids)


async def test_a_hanging_engine_fails_everybody_and_asks_for_a_restart(watch: Watch) -> None:
    async with watch("--inference-timeout-s", "0.3") as watched:
        watched.order(Order.HANG)
        waiting = [asyncio.create_task(watched.predict()) for _ in range(3)]
        for response in await asyncio.gather(*waiting):
            assert reason_of(response) is Reason.INFERENCE_FAILED
        await is_lost(watched, "no result after 0.3 s", failed=3)


@pytest.mark.parametrize(
    ("order", "cause"),
    [
        (Order.POISON, "CUDA failure 700: an illegal memory access"),
        (Order.DIE, "its thread died of SystemExit()"),
    ],
)
async def test_a_lost_engine_fails_everybody_and_asks_for_a_restart(
    watch: Watch, order: Order, cause: str
) -> None:
    async with watch() as watched:
        watched.order(order)
        response = await watched.predict()
        assert reason_of(response) is Reason.INFERENCE_FAILED
        assert "CUDA" not in response.text
        await is_lost(watched, cause, failed=1)


async def is_lost(watched: Watched, cause: str, failed: int) -> None:
    """Probes, metrics, newcomers and the log all say so, and the process still ends in good order."""
    assert await watched.probe("/livez") == await watched.probe("/readyz") == 503
    newcomer = await watched.predict()
    assert (newcomer.status_code, reason_of(newcomer)) == (503, Reason.NOT_READY)
    assert await watched.outcomes("inference_failed") == failed
    assert await watched.metric("foldserve_ready") == 0
    assert await watched.metric('foldserve_rejected_total{reason="not_ready"}') >= 1
    started = time.monotonic()
    log = await watched.end()
    assert f"the engine is lost: {cause}" in log or cause in log
    assert time.monotonic() - started < 10  # and not the 30 s of the grace
