"""The load generator against a service by script: what it sends, what it counts, and from when on."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from service.tuning.load import (
    BROKEN,
    Generator,
    Load,
    TargetLost,
    percentile,
    poisson,
    request_bytes,
)

TIMEOUT_S = 10.0
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
BUSY = b"HTTP/1.1 503 Service Unavailable\r\ncontent-length: 0\r\n\r\n"
LAST = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nConnection: close\r\n\r\nok"

Answer = Callable[[bytes], bytes]


class Script:
    """A service that answers each request as it is told, one thread a connection."""

    def __init__(self, answer: Answer) -> None:
        self.answer = answer
        self.requests: list[bytes] = []
        self.connections = 0
        self._listener = socket.create_server(("127.0.0.1", 0), backlog=128)
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Take no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            self.connections += 1
            threading.Thread(target=self._serve, args=(connection,), daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, connection.makefile("rb") as stream:
            while request := _read(stream):
                self.requests.append(request)
                answer = self.answer(request)
                connection.sendall(answer)
                if not answer or b"close" in answer:
                    return


def _read(stream: object) -> bytes:
    head = b""
    while (line := stream.readline()) not in (b"\r\n", b""):  # type: ignore[attr-defined]
        head += line
    if not head:
        return b""
    length = int(head.lower().partition(b"content-length: ")[2].partition(b"\r\n")[0])
    body: bytes = stream.read(length)  # type: ignore[attr-defined]
    return head + body


@contextmanager
def driving(answer: Answer, body: bytes = b"picture") -> Iterator[tuple[Script, Generator]]:
    script = Script(answer)
    try:
        with Generator(
            script.url, [request_bytes(script.url, body, "image/png", {"X-Test": "1"})], timeout_s=1.0
        ) as generator:
            yield script, generator
    finally:
        script.close()


def test_a_closed_loop_keeps_so_many_requests_on_their_way() -> None:
    together, most, lock = 0, 0, threading.Lock()

    def answer(_: bytes) -> bytes:
        nonlocal together, most
        with lock:
            together += 1
            most = max(most, together)
        time.sleep(0.002)
        with lock:
            together -= 1
        return OK

    with driving(answer) as (script, generator):
        load = generator.closed(4, 0.2)
    assert most == script.connections == 4
    assert load.counts() == {200: len(script.requests)}
    assert load.answered_per_s == pytest.approx(len(script.requests) / 0.2, rel=0.2)
    assert min(load.latencies_s) >= 0.002


def test_what_is_answered_after_the_end_is_no_throughput() -> None:
    load = Load(1.0)
    load.add(0.5, 0.4, 200)
    load.add(0.5, 0.6, 200)
    load.add(0.5, 0.1, 503)
    assert load.answered_per_s == 1
    assert load.failures == 1
    assert load.latencies_ms() == [400, 600]
    assert load.latencies_ms(503) == [100]


def test_an_open_loop_counts_from_the_intended_moment() -> None:
    """The service stands still for the first request; who comes meanwhile has its wait counted."""

    def answer(_: bytes) -> bytes:
        time.sleep(0.1)
        return OK

    with driving(answer) as (script, generator):
        load = generator.open([0.0, 0.02], max_connections=1)
    assert script.connections == 1
    assert load.latencies_s[0] >= 0.1
    assert load.latencies_s[1] >= 0.18
    assert load.lateness_s >= 0.08


@pytest.mark.parametrize("has_own_core", [False, True])
def test_an_open_loop_sends_at_each_moment(has_own_core: bool) -> None:
    moments = poisson(500, 0.3, seed=1)
    with driving(lambda _: OK) as (script, generator):
        load = generator.open(moments, has_own_core=has_own_core)
    assert len(script.requests) == len(moments)
    assert sorted(load.moments) == moments
    assert load.counts() == {200: len(moments)}


def test_statuses_are_told_apart() -> None:
    answers = iter([OK, BUSY, OK, BUSY])
    with driving(lambda _: next(answers)) as (_, generator):
        load = generator.open([0.0, 0.01, 0.02, 0.03])
    assert load.counts() == {200: 2, 503: 2}


def test_a_connection_that_is_closed_is_replaced() -> None:
    with driving(lambda _: LAST) as (script, generator):
        load = generator.open([0.0, 0.02, 0.04])
    assert load.counts() == {200: 3}
    assert script.connections == 3


def test_a_broken_connection_and_silence_are_failures() -> None:
    with driving(lambda _: b"") as (_, generator):
        assert generator.open([0.0]).counts() == {BROKEN: 1}
    silence = threading.Event()

    def answer(_: bytes) -> bytes:
        silence.wait(TIMEOUT_S)
        return b""

    with driving(answer) as (_, generator):
        load = generator.open([0.0])
    silence.set()
    assert load.counts() == {BROKEN: 1}
    assert load.latencies_s[0] >= 1.0


def test_a_body_larger_than_the_kernel_takes_at_once_arrives_whole() -> None:
    body = bytes(range(256)) * 65_536
    with driving(lambda _: OK, body) as (script, generator):
        assert generator.open([0.0]).counts() == {200: 1}
    assert script.requests[0].endswith(body)


def test_nobody_there_is_told() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    with Generator(url, [request_bytes(url, b"", "image/png")]) as generator, pytest.raises(TargetLost):
        generator.closed(1, 0.1)


def test_an_answer_without_a_length_is_none_of_ours() -> None:
    with (
        driving(lambda _: b"HTTP/1.1 200 OK\r\n\r\n") as (_, generator),
        pytest.raises(TargetLost, match="Content-Length"),
    ):
        generator.open([0.0])


def test_a_request_is_what_was_asked_for() -> None:
    with driving(lambda _: OK) as (script, generator):
        generator.open([0.0])
    head, body = script.requests[0].split(b"\r\nX-Test: 1\r\n")
    assert head.startswith(b"POST /predict HTTP/1.1\r\nHost: 127.0.0.1:")
    assert body == b"picture"


def test_arrivals_are_seeded_and_of_the_rate() -> None:
    moments = poisson(1000, 5, seed=3)
    assert moments == poisson(1000, 5, seed=3)
    assert moments == sorted(moments)
    assert len(moments) == pytest.approx(5000, rel=0.1)
    assert moments[-1] < 5


def test_percentiles_are_of_the_nearest_rank() -> None:
    assert [percentile([1.0, 2.0, 3.0, 4.0], p) for p in (1, 25, 26, 99)] == [1, 1, 2, 4]
    assert percentile([], 99) != percentile([], 99)
