"""Slow clients do not slow the others, and hostile ones leave nothing behind."""

from __future__ import annotations

import asyncio
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

import psutil
import pytest

from loadtest.connection import Connection
from loadtest.measurement import percentile
from tests.endurance import amount
from tests.endurance.crowd import Question, questions
from tests.model_files import write_model
from tests.service.images.corpus import specimens
from tests.service.images.damage import damaged
from tests.service.test_process import Service, running
from tests.service.wire import request

pytestmark = [pytest.mark.endurance, pytest.mark.timeout(3600)]

SLOW = 500
HOSTILE = amount.requests() // 10
MEASURED_S = 20.0
NORMAL, PAUSE_S = 8, 0.02
TOGETHER = 8


def say(words: str, capsys: pytest.CaptureFixture[str]) -> None:
    with capsys.disabled():
        print(f"\n{words}")  # noqa: T201 - the figures are what this is for


async def status_of(connection: Connection, data: bytes) -> int:
    """Of the answer to a request; 0: the connection ended first."""
    future: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    connection.send(data, lambda _, answer: future.set_result(answer.status))
    return await future


# Slow clients.


async def dawdle(host: str, port: int, kind: int) -> None:
    """One slow client, who comes back whenever it is thrown out."""
    whole = request()
    never_read = b"GET /openapi.json HTTP/1.1\r\nHost: x\r\n\r\n" * 50
    opening = (whole[:30], whole[: len(whole) // 2], never_read)[kind]
    while True:
        with suppress(OSError):
            reader, writer = await asyncio.open_connection(host, port, limit=1024)
            try:
                writer.write(opening)
                while not (reader.at_eof() or writer.is_closing()):
                    await asyncio.sleep(1)
                    if opening is not never_read:
                        writer.write(b"x")
            finally:
                writer.transport.abort()
        await asyncio.sleep(0.1)


@asynccontextmanager
async def slow_clients(host: str, port: int) -> AsyncIterator[None]:
    tasks = [asyncio.create_task(dawdle(host, port, number % 3)) for number in range(SLOW)]
    await asyncio.sleep(3)  # until they have all begun
    yield
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)


async def latencies_s(url: str) -> list[float]:
    """Of normal clients, each of whom asks fifty times a second at most."""
    address, until = urlsplit(url), time.monotonic() + MEASURED_S
    asked = questions()

    async def normal(number: int) -> list[float]:
        connection = await Connection.open(address)
        seen: list[float] = []
        while time.monotonic() < until:
            began = time.perf_counter()
            await answer(connection, asked[len(seen) % len(asked)], f"{number}-{len(seen)}")
            seen.append(time.perf_counter() - began)
            await asyncio.sleep(PAUSE_S)
        connection.close()
        return seen

    async def answer(connection: Connection, question: Question, request_id: str) -> None:
        assert await status_of(connection, question.request(address, request_id)) == 200

    return [seconds for seen in await asyncio.gather(*map(normal, range(NORMAL))) for seconds in seen]


async def test_slow_clients_do_not_slow_the_others(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path)
    async with running(tmp_path, "--workers", "1") as service:
        address = urlsplit(service.url)
        alone = await latencies_s(service.url)
        async with slow_clients(address.hostname or "", address.port or 0):
            attacked = await latencies_s(service.url)
    before, under = (percentile(sorted(seen), 0.99) * 1e3 for seen in (alone, attacked))
    words = f"p99 {before:.2f} ms alone, {under:.2f} ms with {SLOW} slow clients"
    say(f"{words}; {len(alone)} and {len(attacked)} requests", capsys)
    assert under <= 2 * before


# Hostile clients.


def hostile_requests() -> Iterator[bytes]:
    """Damaged pictures, good ones cut or with bytes replaced, and requests that are none. No end."""
    chance = random.Random(1)
    pictures = [each.data for each in damaged() if len(each.data) < 100_000]
    good = [each.data for each in specimens()]
    while True:
        data = bytearray(chance.choice(good))
        for _ in range(chance.randrange(1, 9)):
            data[chance.randrange(len(data))] = chance.randrange(256)
        yield request(bytes(data))
        yield request(chance.choice(pictures))
        cut = chance.choice(good)
        yield request(cut[: chance.randrange(1, len(cut))])
        form = f"Content-Type: multipart/form-data; boundary={'b' * chance.randrange(1, 70)}"
        yield request(bytes(data), None, form)
        yield request(chance.randbytes(chance.randrange(1, 2000)), None, "Content-Type: application/json")
        yield b"GET /%s HTTP/1.1\r\nHost: x\r\n\r\n" % chance.randbytes(8).hex().encode()


async def hostile(service: Service, count: int, statuses: Counter[int], source: Iterator[bytes]) -> None:
    """So many of them, over connections that are opened again when they end."""
    address = urlsplit(service.url)

    async def client(share: int) -> None:
        connection = await Connection.open(address)
        for _ in range(share):
            if not connection.is_open:
                connection = await Connection.open(address)
            statuses[await status_of(connection, next(source))] += 1
        connection.close()

    await asyncio.gather(*(client(count // TOGETHER) for _ in range(TOGETHER)))


async def test_hostile_requests_leave_no_memory_behind(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path)
    statuses: Counter[int] = Counter()
    source = hostile_requests()
    async with running(tmp_path, "--workers", "1") as service:
        log = asyncio.create_task(service.log())  # or it would fill the pipe, and the service would wait
        process = psutil.Process(service.process.pid)
        await hostile(service, HOSTILE // 10, statuses, source)
        before = process.memory_info().rss
        await hostile(service, HOSTILE, statuses, source)
        after = process.memory_info().rss
        service.process.terminate()
        await log
    words = f"{statuses.total()} hostile requests: {dict(sorted(statuses.items()))}"
    say(f"{words}; resident memory {before / 2**20:.1f} MiB, then {after / 2**20:.1f} MiB", capsys)
    assert not {status for status in statuses if status == 0 or status >= 500}
    assert abs(after - before) <= 0.05 * before
