"""Several workers: one port, one set of metrics, one end; and a worker that dies is replaced."""

from __future__ import annotations

import asyncio
import os
import re
import signal
from contextlib import AsyncExitStack, suppress
from pathlib import Path

import httpx
import psutil
import pytest

from service.app import Application, wiring
from service.hardware import available_cpus
from service.server import fleet, most_workers
from service.settings import Settings
from tests.model_files import TinyModel, png, write_model
from tests.service.api.collector import collecting
from tests.service.test_process import TIMEOUT_S, Service, run, running

pytestmark = pytest.mark.e2e

ALL_READY = 'foldserve_workers{state="ready"} 2.0'
ANSWERED = r'^foldserve_requests_total{code="200",method="POST",route="/predict"}'
IMAGE = png(TinyModel.make().image(1))


def workers(service: Service) -> list[psutil.Process]:
    """Those that live."""
    return [child for child in psutil.Process(service.process.pid).children() if _is_worker(child)]


def _is_worker(child: psutil.Process) -> bool:
    try:
        return child.status() != psutil.STATUS_ZOMBIE and "spawn_main" in " ".join(child.cmdline())
    except psutil.NoSuchProcess:
        return False


async def answered(client: httpx.AsyncClient) -> float:
    """How many predictions the metrics count."""
    text = (await client.get("/metrics")).text
    found = re.search(ANSWERED + r" (\S+)$", text, re.MULTILINE)
    return float(found[1]) if found else 0.0


async def predict(url: str, times: int = 1) -> None:
    """Predictions over one connection."""
    async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as client:
        for _ in range(times):
            assert (await client.post("/predict", content=IMAGE)).status_code == 200


async def all_ready(service: Service) -> None:
    """Wait until both workers are."""
    async with httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT_S) as client:
        while ALL_READY not in (await client.get("/metrics")).text:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.02)


async def test_every_worker_sends_its_traces_before_it_ends(tmp_path: Path) -> None:
    write_model(tmp_path)
    with collecting() as collector:
        async with (
            asyncio.timeout(TIMEOUT_S),
            running(tmp_path, "--otlp-endpoint", collector.endpoint, workers=2) as service,
        ):
            await all_ready(service)
            await asyncio.gather(*(predict(service.url) for _ in range(8)))
            service.process.terminate()
            assert await service.process.wait() == 0
    roots = collector.named("POST /predict")
    assert len(roots) == 8
    for root in roots:
        children = {span.name for span in collector.spans if span.parent_span_id == root.span_id}
        assert children == {"receive", "decode", "queue", "inference", "serialize"}
    linked = {link.span_id for batch in collector.named("batch") for link in batch.links}
    assert linked == {span.span_id for span in collector.named("inference")}


async def test_connections_are_shared_and_metrics_are_of_all(tmp_path: Path) -> None:
    write_model(tmp_path)
    async with running(tmp_path, workers=2) as service, asyncio.timeout(TIMEOUT_S):
        await all_ready(service)
        one, two = workers(service)
        await asyncio.gather(*(predict(service.url, 25) for _ in range(4)))
        async with httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT_S) as client:
            assert await answered(client) == 100
            text = (await client.get("/metrics")).text
        assert 'foldserve_queue_capacity{model="tiny"} 2048.0' in text
        assert 'foldserve_model_info{model="tiny"' in text
        assert 'sha256="' in text
        service.process.terminate()
        assert await service.process.wait() == 0
        assert not one.is_running()
        assert not two.is_running()


@pytest.mark.skipif(available_cpus() < 2, reason="one CPU needs one worker")
async def test_left_to_itself_a_small_model_gets_a_worker_for_each_cpu(tmp_path: Path) -> None:
    write_model(tmp_path)
    count = min(available_cpus(), 8)
    async with running(tmp_path, workers=None) as service, asyncio.timeout(TIMEOUT_S):
        assert len(workers(service)) == count
        async with httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT_S) as client:
            text = (await client.get("/metrics")).text
        assert f'foldserve_workers{{state="ready"}} {float(count)}' in text
        service.process.terminate()
        assert await service.process.wait() == 0


@pytest.mark.skipif(available_cpus() < 2, reason="one CPU needs one worker")
async def test_left_to_itself_a_model_that_wants_more_threads_gets_one_worker(tmp_path: Path) -> None:
    write_model(tmp_path)
    async with running(tmp_path, "--threads", "2", workers=None) as service, asyncio.timeout(TIMEOUT_S):
        assert len(workers(service)) == 1
        await predict(service.url)
        async with httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT_S) as client:
            assert await answered(client) == 1


async def test_open_connections_are_spread_evenly(tmp_path: Path) -> None:
    write_model(tmp_path)
    async with running(tmp_path, workers=2) as service, asyncio.timeout(TIMEOUT_S):
        await all_ready(service)
        assert await six_are_even(service)


async def six_are_even(service: Service) -> bool:
    """Whether six connections that are open at once come to be spread."""
    host, _, port = service.url.removeprefix("http://").partition(":")
    async with AsyncExitStack() as stack:
        for _ in range(6):
            _, writer = await asyncio.open_connection(host, int(port))
            stack.push_async_callback(writer.wait_closed)
            stack.callback(writer.close)
        with suppress(TimeoutError):
            async with asyncio.timeout(1):
                while not is_even([connections(worker) for worker in workers(service)]):  # noqa: ASYNC110 - no event
                    await asyncio.sleep(0.01)
                return True
    return False


def is_even(open_connections: list[int]) -> bool:
    """Whether all six are there, and spread; the parent may still count a client that has just left."""
    return sum(open_connections) == 6 and max(open_connections) - min(open_connections) <= 2


def connections(worker: psutil.Process) -> int:
    return len(worker.net_connections("tcp"))


async def test_a_killed_worker_is_replaced_and_its_counts_stay(tmp_path: Path) -> None:
    write_model(tmp_path)
    async with running(tmp_path, workers=2) as service, asyncio.timeout(TIMEOUT_S):
        await all_ready(service)
        await asyncio.gather(*(predict(service.url, 5) for _ in range(4)))
        async with httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT_S) as client:
            before = await answered(client)
        victim = workers(service)[0]
        os.kill(victim.pid, signal.SIGKILL)
        while victim.pid in (pids := [worker.pid for worker in workers(service)]) or len(pids) < 2:
            await predict(service.url)  # the other one goes on
            before += 1
        async with httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT_S) as client:
            assert await answered(client) == before
        service.process.terminate()
        assert await service.process.wait() == 0
        assert "another is started" in await service.log()


async def test_a_drain_under_load_loses_nothing(tmp_path: Path) -> None:
    write_model(tmp_path)
    answers: list[int] = []

    async def client(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as session:
            while True:
                try:
                    answers.append((await session.post("/predict", content=IMAGE)).status_code)
                except httpx.ConnectError:  # the listener has closed: nothing was sent
                    return

    async with running(tmp_path, "--shutdown-delay-s", "0.3", workers=2) as service:
        async with asyncio.timeout(TIMEOUT_S):
            clients = [asyncio.create_task(client(service.url)) for _ in range(8)]
            while len(answers) < 50:  # noqa: ASYNC110 - a list has no event
                await asyncio.sleep(0.01)
            service.process.send_signal(signal.SIGTERM)
            await asyncio.gather(*clients)
            assert await service.process.wait() == 0
    assert set(answers) == {200}


async def test_workers_end_when_their_parent_is_killed(tmp_path: Path) -> None:
    write_model(tmp_path)
    async with running(tmp_path, workers=2) as service:
        members = workers(service)
        service.process.kill()
        await service.process.wait()
        _, alive = await asyncio.to_thread(psutil.wait_procs, members, TIMEOUT_S)
    assert not alive


def test_a_broken_model_ends_with_one_line(tmp_path: Path) -> None:
    write_model(tmp_path, fault="truncated")
    result = run("--port", "0", "--repository", str(tmp_path), workers=2)
    assert result.returncode == 1
    assert re.match(r"foldserve: .*model\.onnx", result.stderr.splitlines()[-1])
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("cpus", "mebibytes", "workers"),
    [(1, None, 1), (2, None, 2), (64, None, 8), (8, 1024, 4), (8, 100, 1)],
)
def test_workers_are_as_many_as_cpus_as_far_as_the_memory_goes(
    monkeypatch: pytest.MonkeyPatch, cpus: int, mebibytes: int | None, workers: int
) -> None:
    monkeypatch.setattr(fleet, "available_cpus", lambda: cpus)
    monkeypatch.setattr(fleet, "available_memory_bytes", lambda: mebibytes and mebibytes * 2**20)
    assert most_workers() == workers


@pytest.mark.parametrize(("company", "cpus"), [(1, 4), (2, 2), (8, 1)])
async def test_who_gets_company_loads_for_its_share_of_the_cpus_from_then_on(
    monkeypatch: pytest.MonkeyPatch, company: int, cpus: int
) -> None:
    monkeypatch.setattr(wiring, "available_cpus", lambda: 4)
    application = Application(Settings())
    assert application.repository.options.engine.cpus == 4
    application.meet(company)
    assert application.repository.options.engine.cpus == cpus
