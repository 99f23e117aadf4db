"""The process around the application: signals, loading, draining."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Final, cast

import uvicorn

from service.app import Application
from service.server.acceptor import Acceptor
from service.server.connection import Connection, ConnectionLimits
from service.server.door import Door
from service.server.listener import admit_no_more
from service.server.memory import spare_what_stays
from service.server.rpc import open_port
from service.server.signals import SIGNALS, release_signals
from service.server.tls import tls_context
from service.settings import Settings

if TYPE_CHECKING:
    from service.api.rpc.server import RpcServer

logger = logging.getLogger(__name__)

# Connections that were on their way when the listener stopped admitting still arrive for so long.
_LAST_CALL_S: Final = 0.05
# Whoever has a connection may still say what for, for so long: who asks all the time never meets its end, as
# each answer closes its own connection by then.
_LAST_WORDS_S: Final = 1.0
# Connections closed in one turn of the loop: requests that come meanwhile wait for no more.
_CLOSED_A_TURN: Final = 16
# Time to write the answers of requests that fail at the end of the grace.
_FAREWELL_S: Final = 0.2
# How soon a second signal is noticed.
_POLL_S: Final = 0.1


class Server(uvicorn.Server):
    """uvicorn's accept loop, with this service's way to begin and to end.

    Args:
        application: What is served.
        on_end: Told of every connection that has ended.
    """

    def __init__(self, application: Application, on_end: Callable[[], None] | None = None) -> None:
        self.application = application
        self.settings = application.settings
        super().__init__(_uvicorn_config(application, on_end))
        self._acceptors: list[Acceptor] = []
        self._arriving: set[asyncio.Task[object]] = set()
        self._stop_at: float | None = None
        self._draining_since: float | None = None
        self._rpc: RpcServer | None = None

    async def run_until_stopped(self, listeners: list[socket.socket]) -> None:
        """Serve on bound sockets until told to stop, then drain.

        Raises:
            InvalidConfiguration, ModelRejected, ProviderUnavailable: The models could not be loaded.
        """
        loading = asyncio.create_task(self._load())
        stop_watching = self.application.metrics.watch_event_loop()
        await self.serve(sockets=listeners)
        stop_watching()
        loading.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await loading

    async def _load(self) -> None:
        started = time.perf_counter()
        try:
            await self.application.load()
        except BaseException:
            self.should_exit = True
            raise
        spare_what_stays()
        logger.info("ready after %.2f s", time.perf_counter() - started)

    @property
    def is_listening(self) -> bool:
        """Whether new connections are taken from a listener of its own."""
        return any(acceptor.is_open for acceptor in self._acceptors)

    def adopt(self, connection: socket.socket) -> None:
        """Serve a connection that has been accepted."""
        connection.setblocking(False)
        loop = asyncio.get_running_loop()
        context = self.config.ssl
        arriving = loop.connect_accepted_socket(
            self._make_connection,
            connection,
            ssl=context,
            # Until then there is no connection whose clock could tick.
            ssl_handshake_timeout=None if context is None else self.settings.header_timeout_ms / 1000,
        )
        task = loop.create_task(arriving)
        self._arriving.add(task)
        task.add_done_callback(self._arrived)

    def _arrived(self, task: asyncio.Task[object]) -> None:
        self._arriving.discard(task)
        if not task.cancelled() and (error := task.exception()) is not None:
            logger.debug("a connection was given up before it stood: %s", error)

    def _make_connection(self) -> asyncio.Protocol:
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state={})

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup([])
        self._acceptors = [Acceptor(listener, self.adopt) for listener in sockets or []]
        self._rpc = await open_port(self.application)

    # Signals.

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Have `handle_exit` called on signals; not raised again at the end: a drain is a success."""
        before = {number: signal.signal(number, self.handle_exit) for number in SIGNALS}
        release_signals()
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def handle_exit(self, sig: int, _frame: FrameType | None) -> None:
        """Begin to drain; on the second signal, end without grace."""
        if self._stop_at is not None:
            self.force_exit = self.should_exit = True
            return
        self._stop_at = time.monotonic() + self.settings.shutdown_delay_s
        self.drain()
        logger.info("%s: draining", signal.Signals(sig).name)

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; whether to stop."""
        if self._rpc is not None:
            await self._rpc.say_health()
        is_due = self._stop_at is not None and time.monotonic() >= self._stop_at
        return await super().on_tick(counter) or is_due

    # The end.

    def drain(self) -> float:
        """Have every connection end with its answer; since when it does (`time.monotonic`)."""
        if self._draining_since is None:
            self._draining_since = time.monotonic()
        self.application.drain()
        return self._draining_since

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, finish what was accepted within the grace, fail the rest."""
        deadline = time.monotonic() + (0 if self.force_exit else self.settings.shutdown_grace_s)
        draining_since = self.drain()
        for listener in sockets or []:
            admit_no_more(listener)
        await asyncio.sleep(_LAST_CALL_S)
        await asyncio.sleep(0)  # timers go before sockets in a turn of the loop: accept once more
        for acceptor in self._acceptors:
            acceptor.close()
        if self._arriving:
            await asyncio.wait(self._arriving, timeout=_LAST_WORDS_S)
        rpc_ended = asyncio.create_task(self._end_rpc(deadline))
        closed = time.monotonic()
        await self._hear_last_words(lambda each: each.is_idle, min(deadline, draining_since + _LAST_WORDS_S))
        await self._hear_last_words(lambda each: each.is_fresh, min(deadline, closed + _LAST_WORDS_S))
        await self._close_idle()
        await self._wait_for_tasks(deadline)
        await self.application.close(max(0.0, deadline - time.monotonic()))
        await rpc_ended
        await self._wait_for_tasks(time.monotonic() + _FAREWELL_S)
        for task in list(self.server_state.tasks):
            task.cancel()
        await self._wait_for_tasks(time.monotonic() + _FAREWELL_S)
        journal = self.application.journal
        books = {"answered": journal.answered, "left": journal.left}
        logger.info("stopped", extra={"fields": books})

    async def _end_rpc(self, deadline: float) -> None:
        """Have gRPC take no new call and finish those that run; what fails at the end still says so."""
        if self._rpc is not None:
            await self._rpc.stop(max(0.0, deadline - time.monotonic()) + _FAREWELL_S)

    async def _hear_last_words(self, is_awaited: Callable[[Connection], bool], deadline: float) -> None:
        """Have what is under way end with its answer, and wait while some connection may still carry more."""
        for connection in self._connections():
            if not connection.is_idle:
                connection.shutdown()
        while any(map(is_awaited, self._connections())) and time.monotonic() < deadline:
            if self.force_exit:
                return
            await asyncio.sleep(_LAST_CALL_S)

    async def _close_idle(self) -> None:
        """Close the connections that stayed silent; a request that has just come is answered first."""
        for number, connection in enumerate(self._connections(), 1):
            if not (connection.is_idle and connection.has_unread()):
                connection.shutdown()
            if not number % _CLOSED_A_TURN:
                await asyncio.sleep(0)
        await asyncio.sleep(0)  # what was left is read

    def _connections(self) -> list[Connection]:
        """Those that are open now."""
        return list(cast("set[Connection]", self.server_state.connections))

    async def _wait_for_tasks(self, deadline: float) -> None:
        while (tasks := set(self.server_state.tasks)) and not self.force_exit:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            await asyncio.wait(tasks, timeout=min(left_s, _POLL_S))


def _uvicorn_config(application: Application, on_end: Callable[[], None] | None) -> uvicorn.Config:
    settings = application.settings
    limits = ConnectionLimits(
        header_timeout_s=settings.header_timeout_ms / 1000,
        max_header_bytes=settings.max_header_bytes,
        max_connections=settings.max_connections,
        door=Door(application),
        on_refusal=application.journal.refused_early,
        on_end=on_end,
    )
    config = uvicorn.Config(
        application,
        # uvicorn only calls it, with keyword arguments.
        http=cast("type[asyncio.Protocol]", partial(Connection, limits)),
        ws="none",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=settings.keep_alive_timeout_s,
        interface="asgi3",
    )
    config.load()
    config.ssl = tls_context(settings)
    return config


async def serve_alone(settings: Settings, listener: socket.socket) -> None:
    """Serve from this process until a signal comes.

    Raises:
        InvalidConfiguration, ModelRejected, ProviderUnavailable: As `Server.run_until_stopped`.
    """
    await Server(Application(settings)).run_until_stopped([listener])
