"""Open-loop load: requests leave when the schedule says so, answered or not.

::

    schedule ─▶ due? ─▶ free connection ─▶ send ─▶ answer ─▶ Sample(latency from the *intended* moment)
                         └ none ─▶ open one, up to the limit; beyond it the arrival waits, and that counts

Latency counts from the intended moment, so a service that stands still for two seconds shows two
seconds in its percentiles (no coordinated omission). How late the generator itself was in picking
up what was due is kept beside it: where that is not small, the run measured the generator and is invalid.
"""

from __future__ import annotations

import asyncio
import selectors
from collections import deque
from collections.abc import Sequence
from urllib.parse import urlsplit

from loadtest import answers
from loadtest.bodies import Body
from loadtest.connection import BROKEN, Answer, Connection, request_bytes
from loadtest.measurement import Health, Recording, Sample, parse_server_timing, percentile

MAX_CONNECTIONS = 900  # `select` handles 1,024 descriptors


def run(
    url: str,
    moments: Sequence[float],
    bodies: Sequence[Body],
    *,
    timeout_s: float = 10.0,
    max_connections: int = MAX_CONNECTIONS,
) -> Recording:
    """Sends one request at each of the moments.

    Args:
        url: Address of the service.
        moments: Seconds from the start, ascending.
        bodies: Sent in turn, over and over.
        timeout_s: An answer that takes longer counts as none.
        max_connections: Requests on their way at a time.
    """
    # `select` takes its timeout in microseconds; epoll rounds it to milliseconds, a lag of its own.
    with asyncio.Runner(loop_factory=lambda: asyncio.SelectorEventLoop(selectors.SelectSelector())) as runner:
        generator = _Generator(url, moments, bodies, timeout_s, max_connections)
        return runner.run(generator.drive())


class _Generator:
    def __init__(
        self,
        url: str,
        moments: Sequence[float],
        bodies: Sequence[Body],
        timeout_s: float,
        max_connections: int,
    ) -> None:
        self._address = urlsplit(url)
        root = self._address.path.rstrip("/")
        self._requests = [(body, request_bytes(self._address, root + body.path, body)) for body in bodies]
        self._moments = moments
        self._timeout_s = timeout_s
        self._max_connections = max_connections
        self._idle: list[Connection] = []
        self._waiting: deque[int] = deque()
        self._connections = 0
        self._opening: set[asyncio.Task[None]] = set()
        self._samples: list[Sample] = []
        self._lags_ms: list[float] = []
        self._waited = 0

    async def drive(self) -> Recording:
        """Follows the schedule, then waits for the answers that are still out."""
        self._loop = asyncio.get_running_loop()
        self._begin = self._loop.time()
        self._all_answered = self._loop.create_future()
        self._next = 0
        self._pick_up()
        await self._all_answered
        duration_s = self._loop.time() - self._begin
        await asyncio.gather(*self._opening)  # nobody waits for these any more
        for connection in self._idle:
            connection.close()
        return Recording(
            tuple(self._samples), duration_s, Health(percentile(sorted(self._lags_ms), 99), self._waited)
        )

    def _pick_up(self) -> None:
        """Sends whatever is due and asks to be called for the next arrival."""
        now = self._loop.time() - self._begin
        while self._next < len(self._moments) and self._moments[self._next] <= now:
            self._lags_ms.append((now - self._moments[self._next]) * 1000)
            self._dispatch(self._next)
            self._next += 1
        if self._next < len(self._moments):
            self._loop.call_at(self._begin + self._moments[self._next], self._pick_up)
        elif not self._moments:
            self._all_answered.set_result(None)

    def _dispatch(self, arrival: int) -> None:
        if not self._idle and self._connections == self._max_connections:
            self._waited += 1
        self._waiting.append(arrival)
        self._serve_waiting()

    def _serve_waiting(self) -> None:
        """Sends on idle connections, and opens as many more as arrivals wait, up to the limit."""
        while self._waiting and self._idle:
            connection = self._idle.pop()
            if connection.is_open:
                self._send(connection, self._waiting.popleft())
            else:
                self._connections -= 1
        while len(self._opening) < len(self._waiting) and self._connections < self._max_connections:
            self._connections += 1
            task = self._loop.create_task(self._open())
            self._opening.add(task)
            task.add_done_callback(self._opening.discard)

    async def _open(self) -> None:
        """Opens a connection for whoever waits longest; where nobody takes it, that arrival failed."""
        try:
            connection = await asyncio.wait_for(Connection.open(self._address), self._timeout_s)
        except OSError:  # a TimeoutError is one
            self._connections -= 1
            if self._waiting:
                self._record(self._waiting.popleft(), BROKEN)
            return
        self._free(connection)

    def _send(self, connection: Connection, arrival: int) -> None:
        _, request = self._requests[arrival % len(self._requests)]
        give_up = self._loop.call_later(self._timeout_s, connection.close)

        def answered(connection: Connection, answer: Answer) -> None:
            give_up.cancel()
            self._record(arrival, answer)
            self._free(connection)

        connection.send(request, answered)

    def _free(self, connection: Connection) -> None:
        """Takes a connection back, for the arrival that waits longest."""
        if connection.is_open:
            self._idle.append(connection)
        else:
            self._connections -= 1
        self._serve_waiting()

    def _record(self, arrival: int, answer: Answer) -> None:
        now = self._loop.time() - self._begin
        body, _ = self._requests[arrival % len(self._requests)]
        intended = self._moments[arrival]
        outcome = answers.judge(answer.status, answer.content, body.labels)
        stages_ms = parse_server_timing(answer.server_timing)
        self._samples.append(Sample.of(body, outcome, intended, now - intended, stages_ms))
        if len(self._samples) == len(self._moments):
            self._all_answered.set_result(None)
