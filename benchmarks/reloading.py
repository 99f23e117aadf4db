"""What reloads cost the traffic: version after version is published under full load.

::

    python -m benchmarks.reloading models/digits/1 --reloads 200

    steady     the load alone
    reloading  the same load, while one version after the other is published, by a rename, as soon as the one
               before it answers every client

The service is a real process with a real folder. Its clients each send one image after the other, so it is
always busy, and see in their answers who serves. A request that is not answered 200 is a failure, and one is
too many.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import re
import shutil
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

import httpx
import psutil

from loadtest.bodies import Body
from loadtest.connection import Answer, Connection, request_bytes
from loadtest.measurement import percentile
from service.artifact import Precision
from service.engine import Engine

NAME: Final = "subject"
READY_TIMEOUT_S: Final = 120.0
RELOAD_TIMEOUT_S: Final = 120.0
_POLL_S: Final = 0.02
# In an answer of `/predict`, before the predictions.
_VERSION: Final = re.compile(rb'"version":"(\d+)"')
_VERSION_WITHIN: Final = 256


@dataclass(frozen=True, slots=True)
class Window:
    """What the clients saw in some time.

    Attributes:
        latencies_ms: Of every answer, ascending.
        failures: Answers that were not 200.
        seconds: How long it was.
        memory_bytes: Of the service's processes at its end, what nobody else shares.
    """

    latencies_ms: Sequence[float]
    failures: int
    seconds: float
    memory_bytes: int

    def line(self, name: str) -> str:
        """As a row of the table."""
        rate, memory_mib = len(self.latencies_ms) / self.seconds, self.memory_bytes / 2**20
        p50, p99 = (percentile(self.latencies_ms, share) for share in (50, 99))
        longest = self.latencies_ms[-1]
        return (
            f"{name:10} {rate:10.0f} {p50:8.2f} {p99:8.2f} {longest:8.1f} {self.failures:9} {memory_mib:8.0f}"
        )


class Crowd:
    """Clients that each send one request after the other.

    Args:
        url: Of the service.
        images: Sent in turn.
    """

    def __init__(self, url: str, images: Sequence[bytes]) -> None:
        self._serving: dict[Connection, bytes] = {}
        self._awaited = b""
        self._is_met = asyncio.Event()
        self._address = urlsplit(url)
        self._requests = [
            request_bytes(self._address, "/predict", Body("raw", image, "application/octet-stream", ()))
            for image in images
        ]
        self._latencies_ms: list[float] = []
        self._failures = 0
        self._sent = 0

    async def join(self, clients: int) -> None:
        """Let so many clients begin."""
        for _ in range(clients):
            self._send(await Connection.open(self._address))

    def _send(self, connection: Connection) -> None:
        self._sent += 1
        started = time.perf_counter()

        def answered(connection: Connection, answer: Answer) -> None:
            self._latencies_ms.append((time.perf_counter() - started) * 1e3)
            self._failures += answer.status != 200
            self._see(connection, answer.content)
            if connection.is_open:
                self._send(connection)

        connection.send(self._requests[self._sent % len(self._requests)], answered)

    def _see(self, connection: Connection, answer: bytes) -> None:
        found = _VERSION.search(answer, 0, _VERSION_WITHIN)
        self._serving[connection] = b"" if found is None else found[1]
        if self._awaited and all(version == self._awaited for version in self._serving.values()):
            self._is_met.set()

    async def meet(self, version: int) -> None:
        """Wait until the last answer to every client is of this version."""
        self._awaited = b"%d" % version
        self._is_met.clear()
        await self._is_met.wait()
        self._awaited = b""

    def begin(self) -> None:
        """Forget what was seen until now."""
        self._latencies_ms, self._failures = [], 0
        self._began = time.perf_counter()

    def end(self, memory_bytes: int) -> Window:
        """What was seen since the last `begin`."""
        seconds = time.perf_counter() - self._began
        return Window(sorted(self._latencies_ms), self._failures, seconds, memory_bytes)


@asynccontextmanager
async def service(repository: Path, flags: Sequence[str]) -> AsyncIterator[tuple[str, psutil.Process]]:
    """The address and the process of a service that is ready."""
    command = ("-m", "service", "--repository", str(repository), "--port", "0", *flags)
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stderr=asyncio.subprocess.PIPE)
    assert process.stderr is not None  # noqa: S101 - it is a pipe
    try:
        found = re.search(r"http://\S+", (await process.stderr.readline()).decode())
        assert found is not None, "the service did not start"  # noqa: S101 - shown with its log above
        reading = asyncio.create_task(process.stderr.read())
        async with httpx.AsyncClient(base_url=found[0]) as client, asyncio.timeout(READY_TIMEOUT_S):
            while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - no event reaches here
                await asyncio.sleep(_POLL_S)
        yield found[0], psutil.Process(process.pid)
    finally:
        process.terminate()
        await process.wait()
    await reading


async def reload(staged: Path, published: Path, version: int, crowd: Crowd) -> float:
    """Publish a version and take the one before it away; seconds until it answers everybody."""
    began = time.perf_counter()
    (staged / str(version)).rename(published / str(version))
    async with asyncio.timeout(RELOAD_TIMEOUT_S):
        await crowd.meet(version)
    seconds = time.perf_counter() - began
    (published / str(version - 1)).rename(staged / str(version - 1))
    return seconds


def _memory_bytes(service: psutil.Process) -> int:
    processes = (service, *service.children(recursive=True))
    return sum(process.memory_full_info().uss for process in processes)


async def measure(model: Path, reloads: int, clients: int, steady_s: float, flags: Sequence[str]) -> bool:
    """Print the table; whether every request was answered."""
    metadata = Engine.load(model / Precision.FP32.file_name).metadata
    images = [instance.image for instance in metadata.selftest.instances]
    with tempfile.TemporaryDirectory() as folder:
        repository, staged = Path(folder, "models"), Path(folder, "staged")
        published = repository / NAME
        shutil.copytree(model, published / "1")
        for version in range(2, reloads + 2):
            shutil.copytree(published / "1", staged / str(version), copy_function=os.link)
        async with service(repository, ("--reload-interval-s", "0.1", *flags)) as (url, process):
            crowd = Crowd(url, images)
            await crowd.join(clients)
            await asyncio.sleep(min(2.0, steady_s))
            crowd.begin()
            await asyncio.sleep(steady_s)
            steady = crowd.end(_memory_bytes(process))
            print("           requests/s   p50 ms   p99 ms   max ms  failures      MiB")
            print(steady.line("steady"))
            crowd.begin()
            seconds = []
            for version in range(2, reloads + 2):
                seconds.append(await reload(staged, published, version, crowd))
                if sys.stderr.isatty():
                    print(f"\r{version - 1} of {reloads}", end="\r", file=sys.stderr)
            reloading = crowd.end(_memory_bytes(process))
            print(reloading.line("reloading"))
    ratio = percentile(reloading.latencies_ms, 99) / percentile(steady.latencies_ms, 99)
    print(f"{reloads} reloads, {sum(seconds) / reloads:.2f} s each; p99 {ratio:.2f} times the steady one")
    return not steady.failures + reloading.failures


def main() -> int:
    """Run from the command line; exit status 1 if a request failed."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.reloading", description=__doc__.split("\n")[0]
    )
    parser.add_argument("model", type=Path, help="a version's folder, models/<name>/<version>")
    parser.add_argument("--reloads", type=int, default=200)
    parser.add_argument("--clients", type=int, default=16)
    parser.add_argument("--steady", type=float, default=10.0, help="seconds of load without reloads")
    arguments, flags = parser.parse_known_args()
    measured = measure(arguments.model, arguments.reloads, arguments.clients, arguments.steady, flags)
    return 0 if asyncio.run(measured) else 1


if __name__ == "__main__":
    sys.exit(main())
