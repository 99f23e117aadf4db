"""Clients that leave, fall silent, or never read, in every stage of a request."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import AsyncIterator, Callable

import psutil
import pytest
import pytest_asyncio

from tests.service.faults.conftest import Watch, Watched, eventually, watching
from tests.service.faults.faulty import Order
from tests.service.wire import GET, IMAGE, Wire, request

pytestmark = [pytest.mark.e2e, pytest.mark.asyncio(loop_scope="module")]

# The scrape itself.
IDLE = ("foldserve_inflight_requests", 1.0)
each_way = pytest.mark.parametrize("how", [Wire.leave, Wire.vanish])


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watched(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Watched]:
    """One process for all who leave; at its end its log has no trace of any fault of its own."""
    async with watching(tmp_path_factory.mktemp("clients")) as running:
        yield running
        log = await running.end()
    assert "Traceback" not in log
    assert "request failed" not in log


def cancelled(stage: str) -> str:
    return f'foldserve_cancelled_total{{stage="{stage}"}}'


async def goes_on(watched: Watched) -> None:
    """Nothing is left of those who left, and others are served."""
    await watched.until(*IDLE)
    assert (await watched.predict()).status_code == 200
    await watched.until('foldserve_queue_depth{model="tiny"}', 0)


@each_way
async def test_they_leave_within_their_headers(watched: Watched, how: Callable[[Wire], None]) -> None:
    async with watched.connected() as wire:
        await wire.send(request()[:20])
        how(wire)
    await goes_on(watched)


@each_way
async def test_they_leave_within_their_body(watched: Watched, how: Callable[[Wire], None]) -> None:
    before = await watched.metric(cancelled("receive"))
    async with watched.connected() as wire:
        await wire.send(request(IMAGE[:10], length=len(IMAGE)))
        await watched.until(IDLE[0], 2)
        how(wire)
        await watched.until(cancelled("receive"), before + 1)
    await goes_on(watched)


@each_way
async def test_they_leave_while_their_image_is_decoded(
    watched: Watched, how: Callable[[Wire], None], large_image: bytes
) -> None:
    received = 'foldserve_stage_duration_seconds_count{model="tiny",stage="receive",version="1"}'
    before = await watched.metric(cancelled("decode"))
    while await watched.metric(cancelled("decode")) == before:  # a busy machine may have been too late
        bodies = await watched.metric(received)
        async with watched.connected() as wire:
            await wire.send(request(large_image))
            await watched.until(received, bodies + 1)
            how(wire)
            await watched.until(*IDLE)
    await goes_on(watched)


@each_way
async def test_they_leave_the_queue_and_the_engine(watched: Watched, how: Callable[[Wire], None]) -> None:
    queued, ran = await watched.metric(cancelled("queue")), await watched.metric(cancelled("inference"))
    predicted = await watched.outcomes("predicted")
    async with watched.connected() as running, watched.connected() as waiting:
        watched.order(Order.WAIT)
        await running.send(request())
        await watched.obeyed()
        await waiting.send(request())
        await watched.until('foldserve_queue_depth{model="tiny"}', 1)
        how(waiting)
        await watched.until(cancelled("queue"), queued + 1)
        how(running)
        await watched.until(*IDLE)
        watched.let_go()
        await watched.until(cancelled("inference"), ran + 1)
    assert await watched.outcomes("predicted") == predicted
    await goes_on(watched)


async def test_they_fall_silent_in_every_stage(watch: Watch) -> None:
    """To the server a half-open connection is one on which nothing comes any more."""
    limits = ("--header-timeout-ms", "200", "--body-timeout-ms", "200", "--keep-alive-timeout-s", "1")
    async with watch(*limits) as watched, watched.connected() as fresh, watched.connected() as talking:
        async with watched.connected() as sending, watched.connected() as idle:
            await talking.send(request()[:20])
            await sending.send(request(IMAGE[:10], length=len(IMAGE)))
            await idle.send(GET)
            assert (await idle.answer()).status == 200
            assert [(await wire.answer()).status for wire in (fresh, talking, sending)] == [408, 408, 408]
            for wire in (fresh, talking, sending, idle):
                assert await wire.ended()
        assert await watched.metric('foldserve_rejected_total{reason="slow_client"}') == 3
        await goes_on(watched)


@pytest.mark.skipif(not hasattr(socket, "TCP_USER_TIMEOUT"), reason="Linux has this deadline")
async def test_they_never_read_their_answers(watch: Watch) -> None:
    """The kernel gives them up, and with them goes what they held."""
    async with watch("--write-timeout-ms", "300", program="service") as watched:
        process = psutil.Process(watched.service.process.pid)
        with socket.socket() as deaf:
            deaf.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
            deaf.setblocking(False)
            host, _, port = watched.service.url.removeprefix("http://").partition(":")
            await asyncio.get_running_loop().sock_connect(deaf, (host, int(port)))
            question = b"GET /static/style.css HTTP/1.1\r\nHost: x\r\n\r\n"
            await asyncio.get_running_loop().sock_sendall(deaf, question * 1000)
            await eventually(lambda: len(process.net_connections("tcp")) == 2)
            # What is left is the listener.
            await eventually(lambda: len(process.net_connections("tcp")) == 1)
            answered = 'foldserve_requests_total{code="200",method="GET",route="/static/{name}"}'
            assert 0 < await watched.metric(answered) < 1000
        await goes_on(watched)
