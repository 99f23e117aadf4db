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
from service.server.connection import Connection, ConnectionLimits
from service.server.listener import admit_no_more
from service.server.rpc import open_port
from service.server.signals import SIGNALS, release_signals
from service.server.tls import tls_context
from service.settings import Settings

if TYPE_CHECKING:
    from service.api.rpc.server import RpcServer

logger = logging.getLogger(__name__)

# Connections that were on their way when the listener stopped admitting still arrive for so long.
_LAST_CALL_S: Final = 0.05
# Who connected at the last moment may still say what for.
_FIRST_REQUEST_S: Final = 1.0
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
        self._stop_at: float | None = None
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
        logger.info("ready after %.2f s", time.perf_counter() - started)

    def make_connection(self) -> asyncio.Protocol:
        """The protocol of a connection that was accepted elsewhere."""
        make = cast("Callable[..., asyncio.Protocol]", self.config.http_protocol_class)
        return make(config=self.config, server_state=self.server_state, app_state={})

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Listen."""
        await super().startup(sockets)
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
        self.application.drain()
        logger.info("%s: draining", signal.Signals(sig).name)

    async def on_tick(self, counter: int) -> bool:
        """Called by uvicorn ten times a second; whether to stop."""
        if self._rpc is not None:
            await self._rpc.say_health()
        is_due = self._stop_at is not None and time.monotonic() >= self._stop_at
        return await super().on_tick(counter) or is_due

    # The end.

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, finish what was accepted within the grace, fail the rest."""
        deadline = time.monotonic() + (0 if self.force_exit else self.settings.shutdown_grace_s)
        self.application.drain()
        for listener in sockets or []:
            admit_no_more(listener)
        await asyncio.sleep(_LAST_CALL_S)
        await asyncio.sleep(0)  # timers go before sockets in a turn of the loop: accept once more
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        self._close_idle()
        rpc_ended = asyncio.create_task(self._end_rpc(deadline))
        await self._wait_for_first_requests(min(deadline, time.monotonic() + _FIRST_REQUEST_S))
        self._close_idle(even_fresh=True)
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

    def _close_idle(self, *, even_fresh: bool = False) -> None:
        """Close connections without a request, and have the others end with their answer."""
        for connection in list(self.server_state.connections):
            if even_fresh or connection not in self._fresh():
                connection.shutdown()

    def _fresh(self) -> list[Connection]:
        """Connections that were accepted and have not said a word yet."""
        connections = cast("set[Connection]", self.server_state.connections)
        return [connection for connection in connections if connection.is_fresh]

    async def _wait_for_first_requests(self, deadline: float) -> None:
        while self._fresh() and time.monotonic() < deadline and not self.force_exit:  # noqa: ASYNC110 - no event
            await asyncio.sleep(_LAST_CALL_S)

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
