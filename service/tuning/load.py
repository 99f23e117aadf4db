"""A load generator that is light enough to share the cores with what it measures.

::

    closed   n clients, each sends its next request when the last one is answered
    open     requests leave at fixed moments, answered or not; latency counts from the moment

No event loop and no HTTP library: a request is made once as bytes, and of an answer only the status and
its length are read. It costs about 15 µs a request, a tenth of what the service takes for the
smallest one. For services on this machine that answer with ``Content-Length``, as this one does.
"""

from __future__ import annotations

import math
import random
import selectors
import socket
import time
from collections import Counter, deque
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import cycle
from typing import Final
from urllib.parse import urlsplit

from service.errors import FoldserveError

# No answer: the connection broke, or it took longer than the generator waits.
BROKEN: Final = 0
_OK: Final = 200
_RECEIVE_BYTES: Final = 65_536
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH: Final = b"content-length: "
# A service that does not take a connection for so long is not there.
_CONNECT_S: Final = 5.0
# At the end of a closed loop, how soon it is noticed that nothing comes any more.
_POLL_S: Final = 0.05


class TargetLost(FoldserveError):
    """The service takes no connection."""


def request_bytes(
    url: str, body: bytes, media_type: str, headers: Mapping[str, str] | None = None, path: str = "/predict"
) -> bytes:
    """A POST request as it goes over the wire."""
    lines = [
        f"POST {path} HTTP/1.1",
        f"Host: {urlsplit(url).netloc}",
        f"Content-Type: {media_type}",
        f"Content-Length: {len(body)}",
        *(f"{name}: {value}" for name, value in (headers or {}).items()),
    ]
    return "\r\n".join(lines).encode("ascii") + _HEAD_END + body


def poisson(rate_per_s: float, seconds: float, seed: int) -> list[float]:
    """Moments of arrival of independent clients, in seconds from the start, ascending."""
    rng = random.Random(seed)  # noqa: S311 - a load, no secret
    moments: list[float] = []
    moment = rng.expovariate(rate_per_s)
    while moment < seconds:
        moments.append(moment)
        moment += rng.expovariate(rate_per_s)
    return moments


@dataclass(slots=True)
class Load:
    """What a run saw: three lists of one length, in the order of the answers.

    Attributes:
        seconds: How long requests were sent.
        moments: When each request's latency began to count, in seconds from the start.
        latencies_s: Until the whole answer was there.
        statuses: HTTP statuses; `BROKEN` where there was no answer.
        lateness_s: For an open loop, the most that the generator lagged behind its schedule.
    """

    seconds: float
    moments: list[float] = field(default_factory=list)
    latencies_s: list[float] = field(default_factory=list)
    statuses: list[int] = field(default_factory=list)
    lateness_s: float = 0.0

    def add(self, moment: float, latency_s: float, status: int) -> None:
        """One request's end."""
        self.moments.append(moment)
        self.latencies_s.append(latency_s)
        self.statuses.append(status)

    def latencies_ms(self, status: int = _OK) -> list[float]:
        """Of the requests that ended with this status, ascending."""
        pairs = zip(self.latencies_s, self.statuses, strict=True)
        return sorted(latency * 1e3 for latency, its_status in pairs if its_status == status)

    def counts(self) -> Counter[int]:
        """Requests by status."""
        return Counter(self.statuses)

    @property
    def answered_per_s(self) -> float:
        """Answers with 200 a second, while requests were sent; what came after is no throughput."""
        ends = zip(self.moments, self.latencies_s, self.statuses, strict=True)
        in_time = sum(moment + latency <= self.seconds for moment, latency, status in ends if status == _OK)
        return in_time / self.seconds

    @property
    def failures(self) -> int:
        """Requests without a 200."""
        return len(self.statuses) - self.counts()[_OK]


def percentile(ordered: Sequence[float], p: float) -> float:
    """The smallest value that at least ``p`` percent do not exceed (nearest rank); NaN of nothing."""
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(len(ordered) * p / 100) - 1)]


class _Connection:
    """One socket with at most one request on its way."""

    __slots__ = ("is_busy", "is_done", "moment", "received", "socket", "unsent")

    def __init__(self, made: socket.socket) -> None:
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.setblocking(False)
        self.socket = made
        self.received = b""
        self.unsent = memoryview(b"")
        self.moment = 0.0
        self.is_busy = False
        self.is_done = False

    def write(self) -> None:
        """Send what the kernel takes of the request."""
        try:
            self.unsent = self.unsent[self.socket.send(self.unsent) :]
        except BlockingIOError:
            return
        except ConnectionError:  # reading tells
            self.unsent = self.unsent[:0]

    def read(self) -> int | None:
        """The status of an answer that is now complete; None: there is more to come."""
        try:
            data = self.socket.recv(_RECEIVE_BYTES)
        except BlockingIOError:
            return None
        except ConnectionError:
            data = b""
        if not data:
            self.is_done = True
            return BROKEN
        data = self.received + data if self.received else data
        end = data.find(_HEAD_END)
        head = data[:end].lower() if end >= 0 else b""
        if end < 0 or len(data) < end + len(_HEAD_END) + _length(head):
            self.received = data
            return None
        self.received = b""
        self.is_done = b"\r\nconnection: close" in head
        return int(head[9:12])


def _connected(address: tuple[str, int]) -> socket.socket:
    """A socket whose connection stands."""
    try:
        return socket.create_connection(address, _CONNECT_S)
    except OSError as error:
        raise TargetLost(f"no connection to {address[0]} port {address[1]}: {error}") from error


def _connecting(address: tuple[str, int]) -> socket.socket:
    """A socket that may still have to wait for its connection; what is sent meanwhile goes later."""
    made = socket.socket()
    made.setblocking(False)
    made.connect_ex(address)  # reading tells what became of it
    return made


def _length(head: bytes) -> int:
    begin = head.find(_LENGTH)
    if begin < 0:
        raise TargetLost("an answer without Content-Length; is this the service?")
    begin += len(_LENGTH)
    end = head.find(b"\r", begin)
    return int(head[begin:] if end < 0 else head[begin:end])


class Generator:
    """Drives one service from one thread. A context; its connections stay open between runs.

    Args:
        url: ``http://host:port``.
        requests: Sent in turn; see `request_bytes`.
        timeout_s: An answer that takes longer counts as none.
    """

    def __init__(self, url: str, requests: Sequence[bytes], timeout_s: float = 10.0) -> None:
        address = urlsplit(url)
        self._address = (address.hostname or "127.0.0.1", address.port or 80)
        self._requests = cycle([memoryview(request) for request in requests])
        self._timeout_s = timeout_s
        self._selector = selectors.DefaultSelector()
        self._idle: list[_Connection] = []
        self._busy: set[_Connection] = set()
        self._begin = 0.0

    def __enter__(self) -> Generator:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """End all connections."""
        for connection in [*self._idle, *self._busy]:
            connection.socket.close()
        self._idle.clear()
        self._busy.clear()
        self._selector.close()

    # Two ways to send.

    def closed(self, clients: int, seconds: float) -> Load:
        """Keep ``clients`` requests on their way for some seconds, then wait for their answers."""
        load = Load(seconds)
        self._begin = time.perf_counter()
        for _ in range(clients):
            self._send(self._now())
        while self._busy:
            left_s = seconds - self._now()
            if left_s < -self._timeout_s:
                self._give_up(load)
            for _ in self._answers(load, _POLL_S):
                if (now := self._now()) < seconds:
                    self._send(now)
        return load

    def open(
        self, moments: Sequence[float], max_connections: int = 9000, *, has_own_core: bool = False
    ) -> Load:
        """Send one request at each of the moments.

        Args:
            moments: Seconds from the start, ascending.
            max_connections: Requests on their way at a time; what is due beyond that waits, and that counts.
            has_own_core: Whether to spin for what is due within the next millisecond. Otherwise a request
                may leave one millisecond late, which counts too.
        """
        load = Load(moments[-1] if moments else 0.0)
        due = deque(moments)
        self._begin = time.perf_counter()
        while due or self._busy:
            now = self._now()
            while due and due[0] <= now and len(self._busy) < max_connections:
                load.lateness_s = max(load.lateness_s, now - due[0])
                self._send(due.popleft())
            if not due and now > load.seconds + self._timeout_s:
                self._give_up(load)
            for _ in self._answers(load, _patience_s(due, now, has_own_core)):
                continue
        return load

    # What both are made of.

    def _now(self) -> float:
        return time.perf_counter() - self._begin

    def _send(self, moment: float) -> None:
        connection = self._idle.pop() if self._idle else self._open()
        connection.moment = moment
        connection.unsent = next(self._requests)
        connection.write()
        self._busy.add(connection)
        if connection.unsent:
            self._selector.modify(connection.socket, selectors.EVENT_READ | selectors.EVENT_WRITE, connection)

    def _open(self) -> _Connection:
        # One client's wait for a connection must not hold up the others.
        is_first = not (self._busy or self._idle)
        connection = _Connection((_connected if is_first else _connecting)(self._address))
        self._selector.register(connection.socket, selectors.EVENT_READ, connection)
        return connection

    def _answers(self, load: Load, timeout_s: float) -> Iterator[None]:
        """Wait for answers; one item for each, after it was recorded."""
        for key, events in self._selector.select(timeout_s):
            connection: _Connection = key.data
            if events & selectors.EVENT_WRITE:
                connection.write()
                if not connection.unsent:
                    self._selector.modify(connection.socket, selectors.EVENT_READ, connection)
            if events & selectors.EVENT_READ:
                status = connection.read()
                if status is not None:
                    yield from self._end(connection, status, load)

    def _end(self, connection: _Connection, status: int, load: Load) -> Iterator[None]:
        was_busy = connection in self._busy
        self._busy.discard(connection)
        if connection.is_done:
            self._selector.unregister(connection.socket)
            connection.socket.close()
            if not was_busy:
                self._idle.remove(connection)
        else:
            self._idle.append(connection)
        if was_busy:
            load.add(connection.moment, self._now() - connection.moment, status)
            yield

    def _give_up(self, load: Load) -> None:
        """What is not answered by now never will be."""
        for connection in self._busy:
            load.add(connection.moment, self._now() - connection.moment, BROKEN)
            self._selector.unregister(connection.socket)
            connection.socket.close()
        self._busy.clear()


def _patience_s(due: deque[float], now: float, has_own_core: bool) -> float:
    """How long to wait for answers before the next request is due."""
    if not due:
        return _POLL_S
    left_s = max(0.0, due[0] - now)
    if has_own_core and left_s < 2e-3:  # the kernel counts whole milliseconds
        return 0.0
    return min(_POLL_S, left_s - 1e-3 if has_own_core else left_s)
