"""The machine's faults: a full disk, no memory, a repository that vanishes, a clock that jumps, signals."""

from __future__ import annotations

import ast
import asyncio
import os
import random
import re
import resource
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import httpx
import psutil
import pytest

import service as package
from service.errors import Reason
from tests.model_files import write_model
from tests.ports import free_port
from tests.service.faults.conftest import Watch, Watched, eventually, reason_of
from tests.service.test_fleet import all_ready, predict, workers
from tests.service.test_process import TIMEOUT_S, command, running
from tests.service.wire import IMAGE

pytestmark = pytest.mark.e2e

ANSWERED = 'foldserve_requests_total{code="200",method="POST",route="/predict"}'
FAKETIME = next(Path("/usr/lib").glob("*/faketime/libfaketime.so.1"), None)
SOURCES = [
    path
    for path in sorted(Path(package.__file__).parent.rglob("*.py"))
    if "tuning" not in path.parts  # another program, which tries the service
]
# What a person reads: timestamps of log lines, exemplars and spans.
WALL_CLOCK = {"logs.py", "series.py", "otlp.py"}
# What an operator has changed over HTTP is written to `serving.json`, and a repository elsewhere to a cache.
WRITERS = {"plan.py", "remote.py"}


@asynccontextmanager
async def started_on(
    port: int, repository: Path, stderr: int, *flags: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """A process that has been started, ready or not."""
    process = await asyncio.create_subprocess_exec(
        *command("--port", str(port), "--repository", str(repository), *flags), stderr=stderr
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def ready(client: httpx.AsyncClient) -> None:
    """Wait until it can predict."""
    while True:
        try:
            if (await client.get("/readyz")).status_code == 200:
                return
        except httpx.ConnectError:
            await asyncio.sleep(0.02)


async def test_a_full_disk_under_the_log_costs_the_log_only(tmp_path: Path) -> None:
    write_model(tmp_path)
    port = free_port()
    full = os.open("/dev/full", os.O_WRONLY)
    async with (
        asyncio.timeout(TIMEOUT_S),
        started_on(port, tmp_path, full, "--log-level", "debug") as process,
        httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT_S) as client,
    ):
        os.close(full)
        await ready(client)
        for _ in range(50):
            assert (await client.post("/predict", content=IMAGE)).status_code == 200
            assert (await client.post("/predict", content=b"no image")).status_code == 422
        assert (
            await metric(client, r'foldserve_requests_total{code="200",method="POST",route="/predict"}') == 50
        )
        process.terminate()
        assert await process.wait() == 0


async def metric(client: httpx.AsyncClient, series: str) -> float:
    found = re.search(rf"^{re.escape(series)} (\S+)$", (await client.get("/metrics")).text, re.MULTILINE)
    assert found is not None
    return float(found[1])


def test_the_service_writes_no_file_unasked() -> None:
    """So there is no cache, and nothing of what clients want that a full or a read-only disk could stop."""
    writing = re.compile(
        r"""write_text|write_bytes|open\([^)]*["'][wax]|mkdir\(|NamedTemporary|TemporaryDir"""
    )
    assert {path.name for path in SOURCES if writing.search(path.read_text())} == WRITERS


async def test_without_memory_large_images_are_refused_and_small_ones_served(
    watch: Watch, large_image: bytes
) -> None:
    async with watch() as watched:
        assert (await watched.client.post("/predict", content=large_image)).status_code == 200
        pid = watched.service.process.pid
        used = psutil.Process(pid).memory_info().vms
        resource.prlimit(pid, resource.RLIMIT_AS, (used + 50 * 2**20, resource.RLIM_INFINITY))
        refused = await watched.client.post("/predict", content=large_image)
        assert (refused.status_code, reason_of(refused)) == (503, Reason.OVERLOADED)
        assert refused.headers["retry-after"] == "1"
        assert (await watched.predict()).status_code == 200
        assert await watched.probe("/livez") == await watched.probe("/readyz") == 200
        assert await watched.metric('foldserve_rejected_total{reason="overloaded"}') == 1
        resource.prlimit(pid, resource.RLIMIT_AS, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
        assert (await watched.client.post("/predict", content=large_image)).status_code == 200
        assert "no memory to decode" in await watched.end()


async def test_a_repository_that_vanishes_is_not_missed(watch: Watch, tmp_path: Path) -> None:
    async with watch("--reload-interval-s", "0.05") as watched:
        shutil.rmtree(tmp_path / "models")
        for _ in range(50):  # through many looks at what is not there
            assert (await watched.predict()).status_code == 200
            assert await watched.probe("/readyz") == 200
        await watched.end()


async def test_without_a_repository_a_worker_that_ended_is_missed_and_the_others_serve(
    watch: Watch, tmp_path: Path
) -> None:
    async with watch("--workers", "2", program="service") as watched:
        await all_ready(watched.service)
        shutil.move(tmp_path / "models", tmp_path / "elsewhere")
        members = set(pids_of(watched))
        os.kill(min(members), signal.SIGKILL)
        await eventually(lambda: bool(members - {*(pids := pids_of(watched))}) and len(pids) == 2)
        await eventually(lambda: len(pids_of(watched)) == 1)  # the new one has found nothing to serve
        for _ in range(3):
            await predict(watched.service.url)
        shutil.move(tmp_path / "elsewhere", tmp_path / "models")
        await watched.until('foldserve_workers{state="ready"}', 2)
        assert "it is tried again: no model repository" in await watched.end()


def pids_of(watched: Watched) -> list[int]:
    return [worker.pid for worker in workers(watched.service)]


async def test_a_worker_whose_event_loop_hangs_is_replaced(watch: Watch) -> None:
    async with watch("--workers", "2", "--inference-timeout-s", "1", program="service") as watched:
        await all_ready(watched.service)
        victim = workers(watched.service)[0]
        victim.suspend()
        await eventually(lambda: victim.pid not in (pids := pids_of(watched)) and len(pids) == 2)
        await all_ready(watched.service)
        await predict(watched.service.url, 5)
        assert f"worker {victim.pid} says nothing any more" in await watched.end()


# Clocks.


def wall_clock_calls(source: str) -> list[str]:
    """Calls that ask what time of day it is."""
    calls = [node.func for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    names = {ast.unparse(call) for call in calls}
    return sorted(names & {"time.time", "time.time_ns", "datetime.now", "datetime.utcnow", "datetime.today"})


def test_nothing_in_the_service_asks_for_the_time_of_day() -> None:
    """Deadlines, timeouts, rates and durations are of the monotonic clock."""
    assert wall_clock_calls("import time\nx = time.time() - 1") == ["time.time"]
    found = {path.name: calls for path in SOURCES if (calls := wall_clock_calls(path.read_text()))}
    assert set(found) <= WALL_CLOCK, found


async def says(client: httpx.AsyncClient, year: int) -> bool:
    """Whether the service thinks that it is this year."""
    return f" {year} " in (await client.get("/livez")).headers["date"]


@pytest.mark.skipif(FAKETIME is None, reason="needs libfaketime")
async def test_a_clock_that_jumps_moves_no_deadline(tmp_path: Path) -> None:
    """The clock of the day jumps a year ahead, then two back, while requests run."""
    write_model(tmp_path / "models")
    clock = tmp_path / "clock"
    clock.write_text("+0")
    environment = {
        "LD_PRELOAD": str(FAKETIME),
        "FAKETIME_TIMESTAMP_FILE": str(clock),
        "FAKETIME_NO_CACHE": "1",
        "FAKETIME_DONT_FAKE_MONOTONIC": "1",
    }
    patience = {"x-request-timeout-ms": "5000"}
    this_year = datetime.now(UTC).year
    limits = ("--rate-limit-per-minute", "100000", "--keep-alive-timeout-s", "60")
    async with (
        asyncio.timeout(TIMEOUT_S),
        running(tmp_path / "models", *limits, workers=1, **environment) as service,
        httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT_S) as client,
    ):
        for jump, years in (("+1y", 1), ("-1y", -1), ("+0", 0)):
            clock.write_text(jump)
            await eventually(partial(says, client, this_year + years))
            for _ in range(20):
                answer = await client.post("/predict", content=IMAGE, headers=patience)
                assert answer.status_code == 200
                total_ms = float(answer.headers["server-timing"].rpartition("total;dur=")[2])
                assert 0 < total_ms < 5000
        assert (await client.get("/readyz")).status_code == 200
        longest = await metric(client, 'foldserve_request_duration_seconds_sum{route="/predict"}')
        assert 0 < longest < TIMEOUT_S
        service.process.terminate()
        assert await service.process.wait() == 0


# Signals.


@pytest.mark.parametrize(
    ("number", "delays_s"), [(signal.SIGTERM, (0.0, 0.01, 0.1)), (signal.SIGINT, (0.0, 0.05))]
)
async def test_a_signal_at_any_moment_after_it_listens_ends_in_good_order(
    tmp_path: Path, number: signal.Signals, delays_s: tuple[float, ...]
) -> None:
    write_model(tmp_path)
    for delay_s in delays_s:
        async with (
            asyncio.timeout(TIMEOUT_S),
            started_on(0, tmp_path, asyncio.subprocess.PIPE) as process,
        ):
            assert process.stderr is not None
            assert b"listening" in await process.stderr.readline()
            await asyncio.sleep(delay_s)  # the moment is what is tried
            process.send_signal(number)
            assert await process.wait() == 0
            assert b"Traceback" not in await process.stderr.read()


async def test_a_signal_before_it_listens_ends_it_with_nothing_accepted(tmp_path: Path) -> None:
    write_model(tmp_path)
    chance = random.Random(7)
    for _ in range(3):
        async with (
            asyncio.timeout(TIMEOUT_S),
            started_on(0, tmp_path, asyncio.subprocess.PIPE) as process,
        ):
            await asyncio.sleep(chance.uniform(0, 0.3))
            process.terminate()
            log = await asyncio.wait_for(process.communicate(), TIMEOUT_S)
            assert process.returncode == (0 if b"listening" in log[1] else -signal.SIGTERM)


async def test_a_kill_under_load_loses_only_what_was_not_answered(tmp_path: Path) -> None:
    """Every answer that came is right, and the next process takes the port at once."""
    write_model(tmp_path)
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    answers: list[int] = []

    async def client() -> None:
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as session:
            while True:
                try:
                    answer = await session.post("/predict", content=IMAGE)
                except httpx.TransportError:  # killed: what was under way has no answer
                    return
                answers.append(answer.status_code)

    async with asyncio.timeout(TIMEOUT_S), httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as probe:
        for _ in range(2):
            async with started_on(port, tmp_path, asyncio.subprocess.DEVNULL) as process:
                await ready(probe)
                clients = [asyncio.create_task(client()) for _ in range(8)]
                enough = len(answers) + 100
                while len(answers) < enough:  # noqa: ASYNC110 - a list has no event
                    await asyncio.sleep(0.01)
                process.kill()
                await asyncio.gather(*clients)
    assert set(answers) == {200}
