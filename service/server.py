"""The process: listens, loads, serves, drains, ends.

::

    bind ─▶ listen ─▶ load · warm up · self-test (in a thread) ─▶ serve
             /livez 200 · /readyz 503 not_ready                    /readyz 200
    SIGTERM, SIGINT
      /readyz 503 at once ─ shutdown_delay_s, still serving ─▶ listener closes ─ shutdown_grace_s ─▶ exit 0
      (a second signal: no grace)

A connection ends with its answer once draining has begun, so clients go elsewhere by themselves. Under
uvicorn's HTTP parser stands `Connection`, which adds what uvicorn leaves out: deadlines and limits for the
headers, and a call when the client leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import signal
import socket
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from types import FrameType
from typing import Any, Final, cast

import httptools
import uvicorn
import uvloop
from uvicorn.protocols.http.httptools_impl import STATUS_LINE, HttpToolsProtocol

from service.api.exchange import DISCONNECT_EXTENSION, OnLeave, make_request_id
from service.api.problems import problem_response
from service.app import Application
from service.errors import (
    HeadersTooLarge,
    InvalidConfiguration,
    MalformedBody,
    RequestError,
    SlowClient,
)
from service.settings import Settings

logger = logging.getLogger(__name__)

# Connections that the kernel holds while the event loop is busy.
_BACKLOG: Final = 2048
# How long what a refused client still sends is thrown away before its connection is closed: closing at once
# would reset it, and the client would never see why.
_LINGER_S: Final = 1.0
# When the listener has closed, requests already on their way still arrive for so long.
_LAST_CALL_S: Final = 0.05
# Time to write the answers of requests that failed at the end of the grace.
_FAREWELL_S: Final = 1.0
# How soon a second signal is noticed.
_POLL_S: Final = 0.1


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a connection may do before its headers are complete.

    Attributes:
        header_timeout_s: From the connection, or the first byte of a further request, to the end of the
            headers.
        max_header_bytes: Request line and headers together.
        on_refusal: Told of every refusal that never reached the application.
    """

    header_timeout_s: float
    max_header_bytes: int
    on_refusal: Callable[[RequestError, str], None]


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP connection, with limits. In the usual case they cost two comparisons a request."""

    def __init__(self, limits: ConnectionLimits, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limits = limits
        self._head_bytes = 0
        self._is_in_head = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._refusal: RequestError | None = None
        self._is_refused = False
        self._on_leave: OnLeave | None = None
        self._extensions: dict[str, dict[object, object]] = {DISCONNECT_EXTENSION: {"watch": self._watch}}

    def _watch(self, on_leave: OnLeave) -> None:
        """The disconnect extension; see `service.api.exchange`."""
        if self.transport.is_closing():
            on_leave()
        else:
            self._on_leave = on_leave

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock of the first request."""
        super().connection_made(cast("asyncio.Transport", transport))
        self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever works for this client."""
        self._disarm()
        on_leave, self._on_leave = self._on_leave, None
        super().connection_lost(exc)
        if on_leave is not None:
            on_leave()

    def data_received(self, data: bytes) -> None:
        """Parse, then see whether the headers stay within their limits."""
        if self._is_refused:
            return
        self._head_bytes += len(data)
        super().data_received(data)
        if self._is_in_head and not self._is_refused:
            if self._head_bytes > self._limits.max_header_bytes:
                self._refuse(self._headers_too_large())
            elif self._head_timer is None:
                self._arm()

    # The parser's side.

    def on_message_begin(self) -> None:
        """A further request begins."""
        super().on_message_begin()
        self._is_in_head = True
        self.scope["extensions"] = self._extensions

    def on_headers_complete(self) -> None:
        """Hand the request to the application, unless its headers are too large."""
        self._is_in_head = False
        self._disarm()
        if self._head_bytes > self._limits.max_header_bytes and self._exact_head_bytes() > (
            self._limits.max_header_bytes
        ):
            self._refusal = self._headers_too_large()
            raise httptools.HttpParserError("headers too large")
        self._head_bytes = 0
        super().on_headers_complete()

    def on_response_complete(self) -> None:
        """Nobody works for this client any more."""
        self._on_leave = None
        self._head_bytes = 0
        super().on_response_complete()

    def _exact_head_bytes(self) -> int:
        """What was received may hold a body, or another request, as well."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _headers_too_large(self) -> RequestError:
        return HeadersTooLarge(f"the headers exceed the limit of {self._limits.max_header_bytes} bytes")

    # Refusals before there is a request.

    def _arm(self) -> None:
        self._head_timer = self.loop.call_later(self._limits.header_timeout_s, self._give_up)

    def _disarm(self) -> None:
        if self._head_timer is not None:
            self._head_timer.cancel()
            self._head_timer = None

    def _give_up(self) -> None:
        self._head_timer = None
        seconds = self._limits.header_timeout_s
        self._refuse(SlowClient(f"the headers were not complete after {seconds:g} s"))

    def send_400_response(self, _msg: str) -> None:
        """uvicorn's hook for what its parser did not understand."""
        self._refuse(self._refusal or MalformedBody("this is not a valid HTTP/1.1 request"))

    def _refuse(self, error: RequestError) -> None:
        """Answer without the application, and close in stages."""
        self._is_refused = True
        self._disarm()
        if self.transport.is_closing():
            return
        request_id = make_request_id()
        self.transport.write(_raw_response(error, request_id))
        self._limits.on_refusal(error, request_id)
        self.loop.call_later(_LINGER_S, self.transport.close)


def _raw_response(error: RequestError, request_id: str) -> bytes:
    status, headers, body = problem_response(error, request_id)
    headers += [
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
        (b"server-timing", b"total;dur=0"),
        (b"connection", b"close"),
    ]
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return STATUS_LINE[status] + lines + b"\r\n" + body


class Server(uvicorn.Server):
    """uvicorn's accept loop, with this service's way to begin and to end."""

    def __init__(self, application: Application) -> None:
        self.application = application
        self.settings = application.settings
        super().__init__(_uvicorn_config(application))
        self._stop_at: float | None = None

    async def run_until_stopped(self, listener: socket.socket) -> None:
        """Serve on a bound socket until a signal comes, then drain.

        Raises:
            InvalidConfiguration, ModelRejected, ProviderUnavailable: The models could not be loaded.
        """
        loading = asyncio.create_task(self._load())
        stop_watching = self.application.metrics.watch_event_loop()
        await self.serve(sockets=[listener])
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

    # Signals.

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Have `handle_exit` called on signals; not raised again at the end: a drain is a success."""
        signals = (signal.SIGINT, signal.SIGTERM)
        before = {number: signal.signal(number, self.handle_exit) for number in signals}
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
        is_due = self._stop_at is not None and time.monotonic() >= self._stop_at
        return await super().on_tick(counter) or is_due

    # The end.

    async def shutdown(self, sockets: list[socket.socket] | None = None) -> None:
        """Close the listener, finish what was accepted within the grace, fail the rest."""
        deadline = time.monotonic() + (0 if self.force_exit else self.settings.shutdown_grace_s)
        self.application.drain()
        for server in self.servers:
            server.close()
        for listener in sockets or []:
            listener.close()
        await asyncio.sleep(_LAST_CALL_S)
        for connection in list(self.server_state.connections):
            connection.shutdown()
        await self._wait_for_tasks(deadline)
        await self.application.close(max(0.0, deadline - time.monotonic()))
        await self._wait_for_tasks(time.monotonic() + _FAREWELL_S)
        for task in list(self.server_state.tasks):
            task.cancel()
        await self._wait_for_tasks(time.monotonic() + _FAREWELL_S)
        logger.info("stopped")

    async def _wait_for_tasks(self, deadline: float) -> None:
        while (tasks := set(self.server_state.tasks)) and not self.force_exit:
            left_s = deadline - time.monotonic()
            if left_s <= 0:
                return
            await asyncio.wait(tasks, timeout=min(left_s, _POLL_S))


def _uvicorn_config(application: Application) -> uvicorn.Config:
    settings = application.settings
    limits = ConnectionLimits(
        header_timeout_s=settings.header_timeout_ms / 1000,
        max_header_bytes=settings.max_header_bytes,
        on_refusal=application.note_early_refusal,
    )
    return uvicorn.Config(
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


def bind(host: str, port: int) -> socket.socket:
    """A listening socket.

    Raises:
        InvalidConfiguration: The address cannot be had; says why.
    """
    try:
        family, kind, protocol, _, address = socket.getaddrinfo(
            host, port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
        )[0]
        listener = socket.socket(family, kind, protocol)
    except OSError as error:
        raise InvalidConfiguration(f"cannot listen on {host}: {error.strerror}") from error
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
        listener.listen(_BACKLOG)
    except OSError as error:
        listener.close()
        raise InvalidConfiguration(f"cannot listen on {host} port {port}: {error.strerror}") from error
    return listener


def serve(settings: Settings) -> None:
    """Serve until a signal comes.

    Raises:
        InvalidConfiguration: The address is taken, or the settings do not fit the repository.
        ModelRejected: A model that should be served has no version that may.
        ProviderUnavailable: The execution provider that was demanded is not there.
    """
    listener = bind(settings.host, settings.port)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(settings, listener))


async def _serve(settings: Settings, listener: socket.socket) -> None:
    server = Server(Application(settings))
    host, port = listener.getsockname()[:2]
    logger.info("listening on http://%s:%d", f"[{host}]" if ":" in host else host, port)
    await server.run_until_stopped(listener)
