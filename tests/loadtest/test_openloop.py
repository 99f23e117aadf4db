"""The open-loop generator keeps its schedule whatever the service does, and says what that cost."""

from __future__ import annotations

import asyncio
import itertools
import threading
from collections import Counter
from urllib.parse import SplitResult, urlsplit

import pytest

from loadtest import openloop
from loadtest.answers import NO_ANSWER, OK
from loadtest.bodies import Body, encode
from loadtest.connection import Answer as Answered
from loadtest.connection import Connection, OnAnswer
from loadtest.measurement import Health, Recording, percentile
from loadtest.objective import parse
from loadtest.pictures import Picture
from loadtest.report import as_document, as_text, conclude
from loadtest.schedule import Phase, arrivals, phases
from tests.loadtest.scripted_service import HANG_UP, Answer, document, right_shaped, serving

STEPS = [Phase(20.0 * step, 0.1) for step in range(1, 11)]
BODIES = tuple(encode(form, [Picture(b"picture", "image/png", "7")]) for form in ("raw", "multipart", "json"))


def _moments(count: int, spacing_s: float = 0.002) -> list[float]:
    return [position * spacing_s for position in range(count)]


def _kinds(recording: Recording) -> Counter[str]:
    return Counter(sample.kind for sample in recording.samples)


def test_every_arrival_is_answered_once_and_counted_from_its_intended_moment() -> None:
    with serving(right_shaped) as url:
        recording = openloop.run(url, _moments(60), BODIES)
    assert _kinds(recording) == {OK: 60}
    assert sorted(sample.at_s for sample in recording.samples) == _moments(60)
    assert Counter(sample.form for sample in recording.samples) == {"raw": 20, "multipart": 20, "json": 20}
    assert all(sample.right == 1 for sample in recording.samples)
    assert recording.samples[0].stages_ms == {"decode": 0.5, "queue": 0.25, "inference": 2}


def test_a_service_that_stands_still_shows_it_in_the_percentiles() -> None:
    """No coordinated omission: 0.5 s of standstill in 2 s is met by a quarter of the arrivals."""
    gate, stall, count = threading.Lock(), threading.Event(), itertools.count()

    def stands_still_once(content_type: str, body: bytes) -> Answer:
        with gate:
            if next(count) == 100:
                stall.wait(0.5)
        return right_shaped(content_type, body)

    with serving(stands_still_once) as url:
        recording = openloop.run(url, arrivals(phases("steady", 200, 2), seed=0), BODIES)
    latencies = sorted(sample.latency_s for sample in recording.samples)
    assert percentile(latencies, 90) > 0.2


def test_arrivals_beyond_the_connection_limit_wait_and_are_counted() -> None:
    with serving(right_shaped) as url:
        recording = openloop.run(url, [0.0] * 30, BODIES, max_connections=2)
    assert _kinds(recording) == {OK: 30}
    assert recording.health is not None
    assert recording.health.waited == 28


def test_a_connection_that_breaks_costs_one_arrival_and_is_replaced() -> None:
    count = itertools.count()

    def hangs_up_on_the_third(content_type: str, body: bytes) -> Answer:
        return HANG_UP if next(count) == 2 else right_shaped(content_type, body)

    with serving(hangs_up_on_the_third) as url:
        recording = openloop.run(url, _moments(10), BODIES, max_connections=1)
    assert _kinds(recording) == {OK: 9, NO_ANSWER: 1}


async def test_a_connection_that_is_told_something_unasked_is_given_up() -> None:
    """As by a service that would wait no longer for a request."""
    faults: list[object] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))

    def hurry(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(hurry, "127.0.0.1", 0)
    async with server, asyncio.timeout(10):
        host, port = server.sockets[0].getsockname()
        connection = await Connection.open(urlsplit(f"http://{host}:{port}"))
        while connection.is_open:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.001)
    assert not faults


def test_a_connection_that_opens_after_the_last_answer_is_closed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second was opened for an arrival that the first was free for again."""
    opened: list[Connection] = []
    answered: list[Answered] = []
    really_open, really_send = Connection.open, Connection.send

    async def open_the_second_late(address: SplitResult) -> Connection:
        opened.append(await really_open(address))
        while len(opened) == 2 and len(answered) < 2:  # noqa: ASYNC110 - no event
            await asyncio.sleep(0)
        return opened[-1]

    def send(connection: Connection, request: bytes, on_answer: OnAnswer) -> None:
        def answer(connection: Connection, answer: Answered) -> None:
            on_answer(connection, answer)
            answered.append(answer)

        really_send(connection, request, answer)

    monkeypatch.setattr(Connection, "open", open_the_second_late)
    monkeypatch.setattr(Connection, "send", send)
    with serving(right_shaped) as url:
        assert _kinds(openloop.run(url, [0.0, 0.0], BODIES)) == {OK: 2}
    assert [connection.is_open for connection in opened] == [False, False]


def test_nobody_there(unused_tcp_port: int) -> None:
    recording = openloop.run(f"http://127.0.0.1:{unused_tcp_port}", _moments(5), BODIES)
    assert _kinds(recording) == {NO_ANSWER: 5}


def test_an_answer_that_takes_too_long_is_none() -> None:
    gate = threading.Event()

    def never(content_type: str, body: bytes) -> Answer:
        gate.wait(30)
        return HANG_UP

    with serving(never) as url:
        recording = openloop.run(url, _moments(3), BODIES, timeout_s=0.05)
        gate.set()
    assert _kinds(recording) == {NO_ANSWER: 3}


def test_no_arrivals_end_at_once() -> None:
    assert openloop.run("http://127.0.0.1:1", [], BODIES).samples == ()


def test_the_reason_of_a_refusal_is_kept() -> None:
    with serving(lambda *_: (503, {"reason": "overloaded"})) as url:
        assert _kinds(openloop.run(url, _moments(4), BODIES)) == {"overloaded": 4}


@pytest.fixture(scope="module")
def recording() -> Recording:
    with serving(lambda *_: (200, document(1))) as url:
        bodies: list[Body] = list(BODIES)
        return openloop.run(url, arrivals(STEPS, seed=0), bodies)


def test_a_generator_that_lagged_has_measured_nothing(recording: Recording) -> None:
    late = Recording(recording.samples, recording.duration_s, Health(lag_p99_ms=25.0, waited=0))
    result = conclude("late", late, parse("p99<60s"))
    assert (result.is_held, result.is_valid, result.exit_code) == (True, False, 2)
    assert "INVALID" in as_text(result)


def test_the_knee_is_the_last_step_that_held(recording: Recording) -> None:
    result = conclude("knee", recording, parse("p99<60s"), STEPS, in_steps=True)
    assert sum(step.summary.requests for step in result.steps) == len(recording.samples)
    assert result.knee_per_s == 200
    assert "and more was not tried" in as_text(result)
    missed = conclude("knee", recording, parse("throughput<65/s"), STEPS, in_steps=True)
    assert 20 <= missed.knee_per_s < 100
    assert missed.is_held  # the first step did
    assert as_text(missed).splitlines()[-2] == missed.limits == f"held up to {missed.knee_per_s:g} arrivals/s"
    assert [step["held"] for step in as_document(missed)["steps"]].count(True) >= 1
