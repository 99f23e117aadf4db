"""The door under pressure: refuses what would be refused anyway, says the same, and leaves all else alone."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from service.errors import Reason
from service.server.connection import Connection
from service.server.door import Door
from tests.service.test_server import Serve, Served, serve, until
from tests.service.wire import GET, IMAGE, Answer, Wire, request

__all__ = ["serve"]  # the fixture

PLACES = 2


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Whether the door refused, each time that it looked at a request."""
    seen: list[bool] = []
    usual = Door.refusal

    def refusal(door: Door, data: bytes) -> bytes | None:
        answer = usual(door, data)
        seen.append(answer is not None)
        return answer

    monkeypatch.setattr(Door, "refusal", refusal)
    return seen


@asynccontextmanager
async def crowded(serve: Serve, **settings: object) -> AsyncIterator[tuple[Served, Wire, Answer]]:
    """A service whose queue is full, a connection to it, and the refusal that it got by the usual way."""
    async with serve(max_queue_size=PLACES, max_images_per_request=1, **settings) as served:
        served.gate.shut()
        async with served.connected() as first, served.connected() as second, served.connected() as wire:
            await first.send(request())
            await second.send(request())
            await until(lambda: served.batcher.in_use == PLACES)
            await wire.send(request())
            yield served, wire, await wire.answer()


async def test_the_door_says_what_the_usual_way_says(serve: Serve, looks: list[bool]) -> None:
    async with crowded(serve) as (served, wire, usual):
        assert not looks
        for _ in range(3):
            await wire.send(request())
            answer = await wire.answer()
            assert (answer.status, answer.reason) == (503, Reason.OVERLOADED)
            assert answer.headers.keys() == usual.headers.keys()
            assert answer.headers["retry-after"] == usual.headers["retry-after"]
            body, usual_body = json.loads(answer.body), json.loads(usual.body)
            assert body.keys() == usual_body.keys()
            assert body["detail"] == usual_body["detail"]
            assert body["request_id"] == answer.headers["x-request-id"] != usual.headers["x-request-id"]
        assert looks == [True] * 3
        assert served.metric("foldserve_rejected_total", reason="overloaded") == 4
        counted = {"route": "/predict", "method": "POST", "code": "503"}
        assert served.metric("foldserve_requests_total", **counted) == 4
        assert served.metric("foldserve_request_duration_seconds_count", route="/predict") == 4


async def test_when_there_is_room_again_nobody_is_refused(serve: Serve, looks: list[bool]) -> None:
    async with crowded(serve) as (served, wire, _):
        served.gate.open()
        await until(lambda: not served.batcher.in_use)
        await wire.send(request())
        assert (await wire.answer()).status == 200
        await wire.send(GET)
        assert (await wire.answer()).status == 200
        assert not any(looks)


async def test_the_door_is_left_alone_when_the_pressure_is_gone(
    serve: Serve, looks: list[bool], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.server.door._WATCH_S", -1.0)
    async with crowded(serve) as (served, wire, _):
        for _ in range(2):
            await wire.send(request())
            assert (await wire.answer()).status == 503
            assert served.application.journal.is_crowded  # by the usual way
        assert looks == [False] * 2


QUERY = request().replace(b"/predict", b"/predict?top_k=2")
LET_THROUGH = {
    "another route": (GET, 200),
    "another method": (request().replace(b"POST /predict", b"PUT /predict"), 405),
    "a longer path": (request().replace(b"/predict", b"/predictions"), 404),
    "an older version": (request().replace(b"HTTP/1.1", b"HTTP/1.0"), 503),
    "an id of the client's": (request(IMAGE, None, "X-Request-ID: mine"), 503),
    "a connection to be closed": (request(IMAGE, None, "Connection: close"), 503),
    "no host": (request().replace(b"Host: x\r\n", b""), 400),
    "two hosts": (request(IMAGE, None, "Host: y"), 400),
    "two lengths": (request(IMAGE, None, f"Content-Length: {len(IMAGE)}"), 400),
    "a bare line feed": (request(IMAGE, None, "X-A: b\nX-C: d"), 400),
    "a length of many digits": (request().replace(b"Length: ", b"Length: " + b"0" * 5000), 400),
    "a patience that is none": (request(IMAGE, None, "X-Request-Timeout-Ms: soon"), 400),
    "an unknown parameter": (request().replace(b"/predict", b"/predict?colour=red"), 400),
    "an unknown model": (request().replace(b"/predict", b"/predict?model=none"), 404),
}


@pytest.mark.parametrize(("sent", "status"), LET_THROUGH.values(), ids=LET_THROUGH)
async def test_everything_else_goes_the_usual_way(
    serve: Serve, looks: list[bool], sent: bytes, status: int
) -> None:
    async with crowded(serve) as (_, wire, _):
        await wire.send(sent)
        assert (await wire.answer()).status == status
        assert looks == [False]


async def test_a_query_is_understood(serve: Serve, looks: list[bool]) -> None:
    async with crowded(serve) as (_, wire, _):
        await wire.send(QUERY)
        assert (await wire.answer()).status == 503
        assert looks == [True]


async def test_a_request_in_pieces_and_requests_in_one_piece_go_the_usual_way(
    serve: Serve, looks: list[bool]
) -> None:
    async with crowded(serve) as (_, wire, _):
        await wire.send(request()[:40])
        await until(lambda: len(looks) == 1)
        await wire.send(request()[40:])
        assert (await wire.answer()).status == 503
        await wire.send(request() * 2)
        assert [(await wire.answer()).status for _ in range(2)] == [503, 503]
        assert not any(looks)


async def test_what_was_read_of_one_head_is_not_taken_for_another(serve: Serve, looks: list[bool]) -> None:
    async with crowded(serve) as (_, wire, _):
        for length in (len(IMAGE), len(IMAGE) + 1, len(IMAGE)):
            await wire.send(request(IMAGE + b"x" * (length - len(IMAGE))))
            assert (await wire.answer()).status == 503
        await wire.send(request(IMAGE, len(IMAGE) + 1))
        await until(lambda: len(looks) == 4)
        await wire.send(b"x")
        assert (await wire.answer()).status == 503
        assert looks == [True, True, True, False]


async def test_who_was_refused_has_the_whole_time_to_ask_again(serve: Serve) -> None:
    async with crowded(serve, keep_alive_timeout_s=30) as (served, wire, _):
        for _ in range(2):
            await wire.send(request())
            await wire.answer()
        (connection,) = [
            each
            for each in served.server.server_state.connections
            if isinstance(each, Connection) and each._idle_since
        ]
        connection.timeout_keep_alive_handler()
        assert not connection.transport.is_closing()
        connection._idle_since -= 31
        connection.timeout_keep_alive_handler()
        assert await wire.ended()


async def test_who_needs_a_key_is_asked_for_it(serve: Serve, looks: list[bool]) -> None:
    async with crowded(serve, rate_limit_per_minute=1000) as (_, wire, _):
        await wire.send(request())
        assert (await wire.answer()).status == 503
        assert not any(looks)


async def test_while_draining_connections_end_with_their_answer(serve: Serve, looks: list[bool]) -> None:
    async with crowded(serve) as (served, wire, _):
        served.application.drain()
        await wire.send(request())
        answer = await wire.answer()
        assert (answer.status, answer.headers["connection"]) == (503, "close")
        assert not any(looks)
