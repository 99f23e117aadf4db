"""The real process: how it starts, what it says when it cannot, and how it ends."""

from __future__ import annotations

import asyncio
import os
import re
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grpc.aio
import httpx
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from tests.model_files import TinyModel, png, write_model

pytestmark = pytest.mark.e2e

TIMEOUT_S = 30.0
IMAGE = png(TinyModel.make().image(1))


def command(*flags: str, program: str = "service", workers: int | None = 1) -> list[str]:
    """Of a service with so many workers; None: as many as it thinks right."""
    if workers is not None:
        flags = ("--workers", str(workers), *flags)
    return [sys.executable, "-m", program, "--host", "127.0.0.1", "--threads", "1", *flags]


@dataclass
class Service:
    """A running process."""

    process: asyncio.subprocess.Process
    url: str

    async def log(self) -> str:
        """Everything it wrote, once it has ended."""
        assert self.process.stderr is not None
        return (await self.process.stderr.read()).decode()


@asynccontextmanager
async def started(
    repository: Path | str,
    *flags: str,
    program: str = "service",
    workers: int | None = 1,
    **environment: str,
) -> AsyncIterator[Service]:
    """A process that listens."""
    process = await asyncio.create_subprocess_exec(
        *command("--port", "0", "--repository", str(repository), *flags, program=program, workers=workers),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environment},
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(TIMEOUT_S):
            line = (await process.stderr.readline()).decode()
        url = re.search(r"https?://\S+", line)
        assert url is not None, line
        yield Service(process, url[0])
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


@asynccontextmanager
async def running(
    repository: Path | str,
    *flags: str,
    program: str = "service",
    workers: int | None = 1,
    **environment: str,
) -> AsyncIterator[Service]:
    """A process that is ready."""
    async with started(repository, *flags, program=program, workers=workers, **environment) as service:
        async with (
            asyncio.timeout(TIMEOUT_S),
            httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT_S) as client,
        ):
            while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - no event reaches here
                await asyncio.sleep(0.02)
        yield service


def run(*flags: str, workers: int = 1, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(  # noqa: S603 - our own program
        command(*flags, workers=workers),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
        env={**os.environ, **environment},
    )


def test_bad_settings_end_with_one_line_and_status_2() -> None:
    result = run("--max-batch-size", "0")
    assert result.returncode == 2
    assert result.stderr == ("foldserve: --max-batch-size 0: input should be greater than or equal to 1\n")


def test_an_unknown_variable_ends_with_one_line_and_status_2() -> None:
    result = run(FOLDSERVE_MAX_QUEUESIZE="1")
    assert (result.returncode, result.stderr.count("\n")) == (2, 1)
    assert "FOLDSERVE_MAX_QUEUE_SIZE" in result.stderr


def test_a_missing_repository_ends_with_one_line(tmp_path: Path) -> None:
    result = run("--port", "0", "--repository", str(tmp_path / "none"))
    last = result.stderr.splitlines()[-1]
    assert result.returncode == 1
    assert last.startswith("foldserve: no model repository at")
    assert "Traceback" not in result.stderr


def test_a_broken_model_ends_with_one_line(tmp_path: Path) -> None:
    write_model(tmp_path, fault="truncated")
    result = run("--port", "0", "--repository", str(tmp_path))
    assert result.returncode == 1
    assert re.match(r"foldserve: .*model\.onnx", result.stderr.splitlines()[-1])
    assert "Traceback" not in result.stderr


def test_a_busy_port_ends_with_one_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
        result = run("--port", str(port), "--repository", str(tmp_path))
    assert result.returncode == 1
    assert result.stderr == f"foldserve: cannot listen on 127.0.0.1 port {port}: Address already in use\n"


def test_commands_print_the_reference_documents() -> None:
    for name, document in (("settings", "settings.md"), ("openapi", "openapi.json")):
        printed = subprocess.run(  # noqa: S603 - our own program
            [sys.executable, "-m", "service", name], capture_output=True, text=True, timeout=30, check=True
        )
        assert printed.stdout == (Path(__file__).parents[2] / "docs" / document).read_text()


def test_the_service_imports_nothing_that_was_not_asked_for() -> None:
    program = (
        "import sys, service.__main__\n"
        "unwanted = {'torch', 'onnx', 'sklearn', 'grpc', 'google', 'httpx', 'fsspec', 'obstore', 'aiohttp'}\n"
        "print(sorted({name.partition('.')[0] for name in sys.modules} & unwanted))"
    )
    printed = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=30, check=True
    )
    assert printed.stdout == "[]\n"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_ends_the_process_with_status_0(tmp_path: Path, number: signal.Signals) -> None:
    write_model(tmp_path)
    async with running(tmp_path) as service, asyncio.timeout(TIMEOUT_S):
        service.process.send_signal(number)
        assert await service.process.wait() == 0
        assert "Traceback" not in await service.log()


async def test_a_drain_under_load_loses_nothing(tmp_path: Path) -> None:
    """Every request that was sent is answered: with its prediction, also while draining."""
    write_model(tmp_path)
    answers: list[int] = []
    refused = asyncio.Event()

    async def client(url: str) -> None:
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as session:
            while not refused.is_set():
                try:
                    response = await session.post("/predict", content=IMAGE)
                except httpx.ConnectError:  # the listener has closed: nothing was sent
                    refused.set()
                else:
                    answers.append(response.status_code)

    async with running(tmp_path, "--shutdown-delay-s", "0.3") as service, asyncio.timeout(TIMEOUT_S):
        clients = [asyncio.create_task(client(service.url)) for _ in range(8)]
        while len(answers) < 50:  # noqa: ASYNC110 - a list has no event
            await asyncio.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        async with httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT_S) as probe:
            assert (await probe.get("/readyz")).status_code == 503
            assert (await probe.get("/livez")).status_code == 200
        before = len(answers)
        await asyncio.gather(*clients)  # any other error than a refused connection is a lost request
        assert await service.process.wait() == 0
    assert set(answers) == {200}
    assert len(answers) > before  # it went on serving while it said 503 to the load balancer


async def test_a_second_signal_ends_the_delay(tmp_path: Path) -> None:
    write_model(tmp_path)
    async with running(tmp_path, "--shutdown-delay-s", "600") as service, asyncio.timeout(TIMEOUT_S):
        service.process.send_signal(signal.SIGTERM)
        async with httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT_S) as probe:
            while (await probe.get("/readyz")).status_code != 503:  # noqa: ASYNC110 - no event reaches here
                await asyncio.sleep(0.01)
        service.process.send_signal(signal.SIGTERM)
        assert await service.process.wait() == 0


async def test_logs_are_json_on_request(tmp_path: Path) -> None:
    write_model(tmp_path)
    process = await asyncio.create_subprocess_exec(
        *command("--port", "0", "--repository", str(tmp_path), "--log-format", "json"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    async with asyncio.timeout(TIMEOUT_S):
        line = await process.stderr.readline()
        process.terminate()
        await process.wait()
    assert line.startswith(b'{"time":"')


async def test_workers_share_the_grpc_port_and_drain(tmp_path: Path) -> None:
    write_model(tmp_path, model=TinyModel.make())
    flags = ("--workers", "2", "--grpc-port", "0")
    async with running(tmp_path, *flags) as service, asyncio.timeout(TIMEOUT_S):
        assert service.process.stderr is not None
        line = (await service.process.stderr.readline()).decode()
        port = re.search(r"listening for gRPC on port (\d+)", line)
        assert port is not None, line
        # Each channel a connection of its own, which the kernel deals out among the workers.
        options = (("grpc.use_local_subchannel_pool", 1),)
        for _ in range(8):
            async with grpc.aio.insecure_channel(f"127.0.0.1:{port[1]}", options=options) as channel:
                stub: Any = health_pb2_grpc.HealthStub(channel)
                serving = health_pb2.HealthCheckResponse.SERVING
                while (await stub.Check(health_pb2.HealthCheckRequest())).status != serving:  # noqa: ASYNC110 - of a process
                    await asyncio.sleep(0.02)
        async with httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT_S) as client:
            assert (await client.post("/predict", content=IMAGE)).status_code == 200
        service.process.send_signal(signal.SIGTERM)
        assert await service.process.wait() == 0
        assert "Traceback" not in await service.log()
