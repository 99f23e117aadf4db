"""Connections: deadlines, limits, clients that leave. Over real sockets, in this process."""

from __future__ import annotations

import asyncio
import base64
import gc
import json
import resource
import time
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import numpy as np
import pytest

from service.app import Application
from service.batcher import Batcher
from service.errors import InvalidConfiguration, Reason, RequestError
from service.server.connection import Connection
from service.server.listener import bind, raise_descriptor_limit
from service.server.process import Server
from service.settings import Settings
from tests.model_files import png, write_model
from tests.service.api.gate import Gate, GatedRepository
from tests.service.wire import GET, IMAGE, TIMEOUT_S, Wire, request


@dataclass(frozen=True)
class Served:
    """A server that listens, and what a test needs of it."""

    server: Server
    port: int

    @property
    def application(self) -> Application:
        """What it serves."""
        return self.server.application

    @property
    def batcher(self) -> Batcher:
        """Of its only model."""
        return self.application.repository.resolve().batcher

    @property
    def gate(self) -> Gate:
        """Where its engine can be stopped."""
        return cast("GatedRepository", self.application.repository).gate

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Wire]:
        """A client's connection."""
        reader, writer = await asyncio.open_connection("127.0.0.1", self.port)
        try:
            yield Wire(reader, writer)
        finally:
            writer.close()

    def metric(self, name: str, **labels: str) -> float:
        """The value of one series; 0 where there is none yet."""
        return self.application.metrics.registry.get_sample_value(name, labels) or 0.0


Serve: TypeAlias = Callable[..., AbstractAsyncContextManager[Served]]


@pytest.fixture
def serve(tmp_path: Path) -> Serve:
    """Starts a server with these settings."""

    @asynccontextmanager
    async def serving(**settings: Any) -> AsyncIterator[Served]:
        write_model(tmp_path)
        application = Application(
            Settings(**{"repository": tmp_path, "threads": 1, "max_batch_size": 4, **settings}),
            GatedRepository,
        )
        listener = bind("127.0.0.1", 0)
        port: int = listener.getsockname()[1]
        server = Server(application)
        running = asyncio.create_task(server.run_until_stopped([listener]))
        await until(lambda: application.why_not_ready() is None)
        served = Served(server, port)
        try:
            yield served
        finally:
            served.gate.open()
            server.should_exit = True
            async with asyncio.timeout(TIMEOUT_S):
                await running

    return serving


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until the condition holds."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 - none of these has an event
            await asyncio.sleep(0.001)


async def test_a_connection_carries_many_requests(serve: Serve) -> None:
    async with serve() as served, served.connected() as wire:
        for _ in range(3):
            await wire.send(request())
            assert (await wire.answer()).status == 200
        await wire.send(request() + GET + request())  # pipelined
        assert [(await wire.answer()).status for _ in range(3)] == [200, 200, 200]


async def test_a_request_in_single_bytes_is_a_request(serve: Serve) -> None:
    async with serve() as served, served.connected() as wire:
        for byte in request():
            await wire.send(bytes([byte]))
        assert (await wire.answer()).status == 200


@pytest.mark.parametrize("sent", [b"", b"GET /livez HT", b"GET /livez HTTP/1.1\r\nHost: x\r\nX-Slow: "])
async def test_slow_headers_are_answered_408(serve: Serve, sent: bytes) -> None:
    async with serve(header_timeout_ms=50) as served, served.connected() as wire:
        await wire.send(sent)
        answer = await wire.answer()
        assert (answer.status, answer.reason) == (408, Reason.SLOW_CLIENT)
        assert answer.headers["connection"] == "close"
        assert served.metric("foldserve_rejected_total", reason="slow_client") == 1


async def test_a_refused_connection_is_closed(serve: Serve) -> None:
    async with serve(header_timeout_ms=10) as served, served.connected() as wire:
        await wire.answer()
        await wire.send(b"still talking")
        assert await wire.ended()


async def test_the_header_deadline_holds_for_further_requests_but_not_for_idle_connections(
    serve: Serve,
) -> None:
    async with serve(header_timeout_ms=100) as served, served.connected() as wire:
        await wire.send(GET)
        assert (await wire.answer()).status == 200
        async with served.connected() as other:  # idle for longer than the deadline
            assert (await other.answer()).reason is Reason.SLOW_CLIENT
        await wire.send(GET)
        assert (await wire.answer()).status == 200
        await wire.send(b"GET /livez HTTP/1.1\r\n")
        assert (await wire.answer()).reason is Reason.SLOW_CLIENT


async def test_a_slow_body_is_answered_408(serve: Serve) -> None:
    async with serve(body_timeout_ms=50) as served, served.connected() as wire:
        await wire.send(request(IMAGE, length=len(IMAGE) + 1))
        answer = await wire.answer()
        assert (answer.status, answer.reason) == (408, Reason.SLOW_CLIENT)
        assert answer.headers["connection"] == "close"


INDEX = b"POST /v2/repository/index HTTP/1.1\r\nHost: x\r\nContent-Length: 20\r\n\r\n{"


async def test_a_slow_body_is_answered_408_by_every_route(serve: Serve) -> None:
    async with serve(body_timeout_ms=50) as served, served.connected() as wire:
        await wire.send(INDEX)
        answer = await wire.answer()
        assert (answer.status, answer.reason) == (408, Reason.SLOW_CLIENT)
        assert answer.headers["connection"] == "close"


async def test_a_client_that_leaves_within_any_body_is_counted_as_one_that_left(serve: Serve) -> None:
    async with serve() as served, served.connected() as wire:
        bodies = served.application.inference.bodies
        await wire.send(INDEX)
        await until(lambda: bodies.held_bytes == 20)
        wire.vanish()
        await until(lambda: served.application.journal.left == 1)
        assert (bodies.held_bytes, served.application.journal.answered) == (0, 0)


CHUNKED = b"POST /predict HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "unread", [b"0\r\n" + b"X: y\r\n" * 300_000, b"0\r\nX: " + b"y" * 2_000_000, b"1;" + b"x" * 2_000_000]
)
async def test_what_is_neither_head_nor_body_is_bounded_too(serve: Serve, unread: bytes) -> None:
    async with serve() as served, served.connected() as wire:
        await wire.send(CHUNKED + b"3\r\nabc\r\n" + unread)
        assert (await wire.answer()).reason is Reason.HEADERS_TOO_LARGE
        await until(lambda: served.application.metrics.inflight_requests.value == 0)


async def test_a_body_in_many_chunks_is_a_body(serve: Serve) -> None:
    chunks = [b"%x;a=b\r\n" % len(part) + part + b"\r\n" for part in map(bytes, zip(IMAGE, strict=True))]
    async with serve() as served, served.connected() as wire:
        await wire.send(CHUNKED + b"".join(chunks) + b"0\r\nX-Trailer: y\r\n\r\n")
        assert (await wire.answer()).status == 200


AMBIGUOUS = {
    "both lengths": b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    "two lengths": b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
    "the same length twice": b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
    "list of lengths": b"Content-Length: 3, 3\r\n\r\nabc",
    "signed length": b"Content-Length: +3\r\n\r\nabc",
    "hexadecimal length": b"Content-Length: 0x3\r\n\r\nabc",
    "huge length": b"Content-Length: 99999999999999999999999\r\n\r\nabc",
    "unknown coding": b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    "chunked not last": b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    "two codings": b"Transfer-Encoding: chunked\r\nTransfer-Encoding: identity\r\n\r\n0\r\n\r\n",
    "space before the colon": b"Transfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    "folded": b"Transfer-Encoding:\r\n chunked\r\n\r\n0\r\n\r\n",
    "negative chunk": b"Transfer-Encoding: chunked\r\n\r\n-1\r\n\r\n",
    "overflowing chunk": b"Transfer-Encoding: chunked\r\n\r\nfffffffffffffffffff\r\n\r\n",
    "chunk without its end": b"Transfer-Encoding: chunked\r\n\r\n1\r\nab0\r\n\r\n",
    "chunk with bare line feeds": b"Transfer-Encoding: chunked\r\n\r\n1\na\n0\n\n",
    "null": b"X: a\0b\r\n\r\n",
    "bare carriage return": b"X: a\rb\r\n\r\n",
}


@pytest.mark.parametrize("rest", AMBIGUOUS.values(), ids=AMBIGUOUS)
async def test_no_request_is_smuggled_in_another(serve: Serve, rest: bytes) -> None:
    """What two readers could understand in two ways is refused, and nothing behind it is looked at."""
    async with serve() as served, served.connected() as wire:
        await wire.send(b"POST /predict HTTP/1.1\r\nHost: x\r\n" + rest + GET)
        assert (await wire.answer()).reason is Reason.MALFORMED_BODY
        assert await wire.ended()


async def test_a_client_that_stays_silent_is_closed_at_the_end(serve: Serve) -> None:
    async with serve() as served, served.connected() as wire:
        await wire.send(GET)
        assert (await wire.answer()).status == 200
        served.server.should_exit = True
        assert await wire.ended()


async def test_what_has_come_and_was_not_read_is_seen(serve: Serve) -> None:
    async with serve() as served, served.connected() as wire:
        await wire.send(GET)
        await wire.answer()
        connection = cast("Connection", next(iter(served.server.server_state.connections)))
        assert not connection.has_unread()
        await wire.send(b"GET")
        time.sleep(0.05)  # noqa: ASYNC251 - the loop must not turn: it would read
        assert connection.has_unread()
        wire.leave()


async def test_a_slow_client_does_not_hold_up_the_others(serve: Serve) -> None:
    async with serve() as served, served.connected() as slow, served.connected() as fast:
        await slow.send(request(IMAGE[:10], length=len(IMAGE)))
        await fast.send(request())
        assert (await fast.answer()).status == 200
        await slow.send(IMAGE[10:])
        assert (await slow.answer()).status == 200


@pytest.mark.parametrize(
    "pieces",
    [
        [b"GET /livez HTTP/1.1\r\nX: " + b"a" * 2000 + b"\r\n\r\n"],
        [b"GET /livez HTTP/1.1\r\nX: ", b"a" * 600, b"b" * 600],
        [b"GET /livez HTTP/1.1\r\n", *[b"X-%d: abcdefghij\r\n" % number for number in range(100)]],
        [b"GET /livez?" + b"q" * 2000 + b" HTTP/1.1\r\n\r\n"],
    ],
    ids=["at once", "one long value", "many", "query"],
)
async def test_too_large_headers_are_answered_431(serve: Serve, pieces: list[bytes]) -> None:
    async with serve(max_header_bytes=1024) as served, served.connected() as wire:
        for piece in pieces:
            await wire.send(piece)
            await asyncio.sleep(0)
        answer = await wire.answer()
        assert (answer.status, answer.reason) == (431, Reason.HEADERS_TOO_LARGE)
        assert answer.headers["connection"] == "close"


JAVA = (
    "Connection: Upgrade, HTTP2-Settings",
    "Upgrade: h2c",
    "HTTP2-Settings: AAEAAEAAAAIAAAABAAMAAABkAAQBAAAA",
)


@pytest.mark.parametrize("pieces", [1, 2, 1000])
async def test_an_offer_of_another_protocol_is_declined_and_its_request_answered(
    serve: Serve, pieces: int
) -> None:
    """As Java's HTTP client sends it with every request, with a body or without."""
    sent = (
        request(IMAGE, None, *JAVA) + GET.replace(b"Host", b"Connection: Upgrade\r\nUpgrade: x\r\nHost") + GET
    )
    step = -(-len(sent) // pieces)
    async with serve() as served, served.connected() as wire:
        for start in range(0, len(sent), step):
            await wire.send(sent[start : start + step])
        assert [(await wire.answer()).status for _ in range(3)] == [200, 200, 200]


@pytest.mark.parametrize(
    "line", [b"GET /livez HTTP/2.0", b"GET /livez", b"CONNECT /livez HTTP/1.1", b"CONNECT x:443 HTTP/1.1"]
)
async def test_another_protocol_is_refused(serve: Serve, line: bytes) -> None:
    offer = b"\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n"
    async with serve() as served, served.connected() as wire:
        await wire.send(line + offer)
        assert (await wire.answer()).reason is Reason.MALFORMED_BODY
        assert await wire.ended()


@pytest.mark.parametrize(
    ("next_one", "reason"),
    [(b"WHAT\r\n\r\n", Reason.MALFORMED_BODY), (b"GET / HTTP/1.1\r\nX: ", Reason.SLOW_CLIENT)],
)
async def test_who_asked_before_is_answered_before(serve: Serve, next_one: bytes, reason: Reason) -> None:
    async with serve(header_timeout_ms=50) as served, served.connected() as wire:
        served.gate.shut()
        await wire.send(request() + request() + next_one)
        await served.gate.occupied()
        await asyncio.sleep(0.1)  # the deadline of the next one's headers is what is tried
        served.gate.open()
        assert [(await wire.answer()).status for _ in range(2)] == [200, 200]
        assert (await wire.answer()).reason is reason
        assert await wire.ended()


async def test_a_large_body_is_not_taken_for_headers(serve: Serve) -> None:
    async with serve(max_header_bytes=1024) as served, served.connected() as wire:
        for _ in range(2):
            await wire.send(request(b"x" * 300_000))
            assert (await wire.answer()).reason is Reason.UNDECODABLE_IMAGE


@pytest.mark.parametrize(
    "sent", [b"WHAT\r\n\r\n", b"\x16\x03\x01\x02\x00", b"GET / HTTP/1.1\r\nA b: c\r\n\r\n"]
)
async def test_what_is_no_http_is_answered_400(serve: Serve, sent: bytes) -> None:
    async with serve() as served, served.connected() as wire:
        await wire.send(sent)
        assert (await wire.answer()).reason is Reason.MALFORMED_BODY


@pytest.mark.parametrize(
    ("hosts", "version", "status"),
    [
        (b"", b"1.1", 400),
        (b"Host: x\r\nHost: x\r\n", b"1.1", 400),
        (b"Host:\r\n", b"1.1", 200),
        (b"", b"1.0", 200),
    ],
)
async def test_a_request_names_its_host_once(serve: Serve, hosts: bytes, version: bytes, status: int) -> None:
    async with serve() as served, served.connected() as wire:
        await wire.send(b"GET /livez HTTP/%b\r\n%b\r\n" % (version, hosts))
        assert (await wire.answer()).status == status


BAD = {
    "decoded at once": request(IMAGE[:-20]),
    "decoded by a thread": request(png(np.zeros((900, 900, 3), np.uint8))[:-20]),
    "no image": request(b"x" * 100),
    "instances": request(b'{"instances": [{"b64": "eHg="}]}').replace(
        b"/predict", b"/v1/models/tiny:predict"
    ),
    "one of two": request(
        json.dumps({"images": [base64.b64encode(data).decode() for data in (IMAGE, b"x")]}).encode()
    ).replace(b"image/png", b"application/json"),
}


@pytest.mark.parametrize("sent", BAD.values(), ids=BAD)
async def test_nothing_of_a_refused_request_waits_for_the_garbage_collector(
    serve: Serve, sent: bytes
) -> None:
    """Its body would be kept as well: a hundred refused photographs are a gigabyte."""
    async with serve() as served, served.connected() as wire:
        gc.collect()
        gc.disable()
        try:
            await wire.send(sent)
            assert (await wire.answer()).status in (200, 400, 422)
            await until(lambda: not [kept for kept in gc.get_objects() if isinstance(kept, RequestError)])
        finally:
            gc.enable()


async def test_a_refused_upload_hears_why_before_the_connection_ends(serve: Serve) -> None:
    async with serve(max_body_bytes=1024) as served, served.connected() as wire:
        await wire.send(request(b"", length=4_000_000))
        sending = asyncio.create_task(wire.send(b"x" * 4_000_000))
        answer = await wire.answer()
        assert (answer.reason, answer.headers["connection"]) == (Reason.BODY_TOO_LARGE, "close")
        await sending
        assert await wire.ended()


@pytest.mark.parametrize("how", [Wire.leave, Wire.vanish])
async def test_a_client_that_leaves_the_queue_takes_its_work_along(
    serve: Serve, how: Callable[[Wire], None]
) -> None:
    async with serve() as served, served.connected() as first, served.connected() as second:
        served.gate.shut()
        await first.send(request())
        await served.gate.occupied()
        await second.send(request())
        await until(lambda: served.batcher.depth == 1)
        how(second)
        await until(lambda: served.batcher.in_use == 1)
        served.gate.open()
        assert (await first.answer()).status == 200
        assert served.gate.batch_sizes == [1]
        assert served.metric("foldserve_cancelled_total", stage="queue") == 1
        await until(lambda: served.metric("foldserve_inflight_requests") == 0)


async def test_a_client_that_leaves_during_inference_is_counted(serve: Serve) -> None:
    async with serve() as served, served.connected() as wire:
        served.gate.shut()
        await wire.send(request())
        await served.gate.occupied()
        wire.leave()
        await until(lambda: served.metric("foldserve_inflight_requests") == 0)
        served.gate.open()
        await until(lambda: served.batcher.in_use == 0)
        assert served.metric("foldserve_cancelled_total", stage="inference") == 1


async def test_a_client_that_leaves_within_its_body_is_counted(serve: Serve) -> None:
    async with serve() as served, served.connected() as wire:
        await wire.send(request(IMAGE[:10], length=len(IMAGE)))
        await until(lambda: served.metric("foldserve_inflight_requests") == 1)
        wire.leave()
        await until(lambda: served.metric("foldserve_inflight_requests") == 0)
        assert served.metric("foldserve_cancelled_total", stage="receive") == 1


async def test_a_drain_finishes_what_was_accepted_and_closes_idle_connections(serve: Serve) -> None:
    async with serve() as served, served.connected() as busy, served.connected() as idle:
        await idle.send(GET)
        await idle.answer()
        served.gate.shut()
        await busy.send(request())
        await served.gate.occupied()
        served.server.should_exit = True
        assert await idle.ended()
        served.gate.open()
        answer = await busy.answer()
        assert (answer.status, answer.headers["connection"]) == (200, "close")


async def test_who_connected_at_the_last_moment_may_still_ask(serve: Serve) -> None:
    async with serve() as served, served.connected() as fresh, served.connected() as idle:
        await idle.send(GET)
        await idle.answer()
        await until(lambda: len(served.server.server_state.connections) == 2)
        served.server.should_exit = True
        await until(lambda: not served.server.is_listening)
        for wire in (fresh, idle):
            await wire.send(request())
            answer = await wire.answer()
            assert (answer.status, answer.headers["connection"]) == (200, "close")


async def test_what_exceeds_the_grace_is_told_so(serve: Serve) -> None:
    async with serve(shutdown_grace_s=0.1) as served, served.connected() as wire:
        served.gate.shut()
        await wire.send(request())
        await served.gate.occupied()
        served.server.should_exit = True
        assert (await wire.answer()).reason is Reason.SHUTTING_DOWN


async def test_a_body_that_outlasts_the_grace_is_cut_off(serve: Serve) -> None:
    async with serve(shutdown_grace_s=0.1) as served, served.connected() as wire:
        await wire.send(request(IMAGE[:10], length=len(IMAGE)))
        await until(lambda: served.metric("foldserve_inflight_requests") == 1)
        served.server.should_exit = True
        assert (await wire.answer()).reason is Reason.SHUTTING_DOWN


def test_a_taken_port_is_named() -> None:
    with bind("127.0.0.1", 0) as listener:
        port = listener.getsockname()[1]
        with pytest.raises(InvalidConfiguration, match=f"port {port}: Address already in use"):
            bind("127.0.0.1", port)


def test_an_impossible_host_is_named() -> None:
    with pytest.raises(InvalidConfiguration, match=r"cannot listen on 256\.0\.0\.1"):
        bind("256.0.0.1", 0)


async def test_a_response_is_one_packet(serve: Serve) -> None:
    async with serve() as served:
        reader, writer = await asyncio.open_connection("127.0.0.1", served.port)
        writer.write(request())
        async with asyncio.timeout(TIMEOUT_S):
            first = await reader.read(65536)
        writer.close()
        head, _, body = first.partition(b"\r\n\r\n")
        assert f"content-length: {len(body)}".encode() in head


async def test_who_expects_a_100_hears_it_before_sending(serve: Serve) -> None:
    async with serve() as served, served.connected() as wire:
        await wire.send(request(b"", len(IMAGE), "Expect: 100-continue"))
        assert await wire.head() == b"HTTP/1.1 100 Continue\r\n\r\n"
        await wire.send(IMAGE)
        assert (await wire.answer()).status == 200


async def test_a_clients_deadline_counts_from_its_first_byte(serve: Serve) -> None:
    async with serve() as served, served.connected() as wire:
        await wire.send(request(IMAGE[:10], len(IMAGE), "X-Request-Timeout-Ms: 20"))
        await until(lambda: served.metric("foldserve_inflight_requests") == 1)
        await asyncio.sleep(0.03)  # the client's own slowness is what is tested
        await wire.send(IMAGE[10:])
        assert (await wire.answer()).reason is Reason.DEADLINE_EXCEEDED


async def test_the_default_deadline_does_not_count_what_the_body_took(serve: Serve) -> None:
    async with serve(default_deadline_ms=200) as served, served.connected() as wire:
        await wire.send(request(IMAGE[:10], len(IMAGE)))
        await until(lambda: served.metric("foldserve_inflight_requests") == 1)
        await asyncio.sleep(0.25)
        await wire.send(IMAGE[10:])
        assert (await wire.answer()).status == 200


async def test_connections_beyond_the_limit_are_told_so(serve: Serve) -> None:
    async with serve(max_connections=2) as served, served.connected() as one, served.connected() as two:
        for wire in (one, two):
            await wire.send(GET)
            assert (await wire.answer()).status == 200
        async with served.connected() as three:
            answer = await three.answer()
            assert (answer.status, answer.reason) == (503, Reason.OVERLOADED)
            assert answer.headers["retry-after"] == "1"
        await one.send(GET)
        assert (await one.answer()).status == 200


async def test_bodies_have_room_together_and_give_it_back(serve: Serve) -> None:
    async with serve(max_body_bytes=2048, max_bytes_in_flight=3000) as served, served.connected() as slow:
        await slow.send(request(b"x" * 10, length=2000))
        await until(lambda: served.metric("foldserve_inflight_requests") == 1)
        async with served.connected() as wire:
            await wire.send(request(b"y" * 2000))
            assert (await wire.answer()).reason is Reason.OVERLOADED
            await wire.send(request())
            assert (await wire.answer()).status == 200
            await slow.send(b"x" * 1990)
            assert (await slow.answer()).reason is Reason.UNDECODABLE_IMAGE
            for _ in range(3):
                await wire.send(request(b"y" * 2000))
                assert (await wire.answer()).reason is Reason.UNDECODABLE_IMAGE


async def test_bodies_that_announce_nothing_are_counted_as_they_come(serve: Serve) -> None:
    async with serve(max_body_bytes=2048, max_bytes_in_flight=3000) as served, served.connected() as slow:
        await slow.send(request(b"x" * 10, length=2000))
        await until(lambda: served.metric("foldserve_inflight_requests") == 1)
        async with served.connected() as wire:
            await wire.send(CHUNKED)
            await wire.send(b"3e8\r\n" + b"y" * 1000 + b"\r\n")
            await until(lambda: served.metric("foldserve_inflight_requests") == 2)
            await wire.send(b"3e8\r\n" + b"y" * 1000 + b"\r\n0\r\n\r\n")
            assert (await wire.answer()).reason is Reason.OVERLOADED


def test_the_descriptor_limit_is_raised_as_far_as_it_goes() -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
        raise_descriptor_limit(300)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 556
        raise_descriptor_limit(1)
        assert resource.getrlimit(resource.RLIMIT_NOFILE)[0] == 556
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
