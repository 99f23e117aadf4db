"""A service that is stopped for two seconds shows it to whoever keeps a schedule, and to nobody else."""

from __future__ import annotations

import asyncio
import time
from pathlib import Path

import httpx
import psutil
import pytest

from loadtest import openloop
from loadtest.bodies import Body
from loadtest.measurement import percentile, summarise
from loadtest.schedule import arrivals, phases
from tests.model_files import write_model
from tests.service.test_process import Service, running
from tests.service.wire import IMAGE

STOPPED_S = 2.0
DURATION_S = 4.0


async def _stopped_for_a_while(service: Service) -> None:
    """From one second on."""
    process = psutil.Process(service.process.pid)
    await asyncio.sleep(1.0)
    process.suspend()
    await asyncio.sleep(STOPPED_S)  # the fault itself
    process.resume()


async def _in_a_closed_loop(url: str) -> list[float]:
    """Milliseconds that a client sees who waits for each answer before the next request."""
    latencies, ends = [], time.monotonic() + DURATION_S
    async with httpx.AsyncClient(base_url=url, timeout=30) as client:
        while (began := time.monotonic()) < ends:
            (await client.post("/predict", content=IMAGE)).raise_for_status()
            latencies.append((time.monotonic() - began) * 1000)
    return sorted(latencies)


@pytest.mark.e2e
async def test_it_is_in_the_99th_percentile_of_an_open_loop_alone(tmp_path: Path) -> None:
    write_model(tmp_path)
    body = Body("raw", IMAGE, "image/png", (None,))
    moments = arrivals(phases("steady", 50, DURATION_S), seed=0)
    async with running(tmp_path) as service:
        recording, waiting_ms, _ = await asyncio.gather(
            asyncio.to_thread(openloop.run, service.url, moments, [body]),
            _in_a_closed_loop(service.url),
            _stopped_for_a_while(service),
        )
    summary = summarise(recording.samples, recording.duration_s)
    assert summary.errors == 0
    assert summary.percentiles[99.0] > 0.9 * STOPPED_S * 1000
    assert summary.percentiles[90.0] > 0.5 * STOPPED_S * 1000  # half of all arrivals met it
    assert summary.stages_ms["queue"] < 100  # of which the service itself knows nothing
    assert percentile(waiting_ms, 99) < 0.5 * STOPPED_S * 1000
