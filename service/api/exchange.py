"""One HTTP exchange: what came in, what goes out, and what is said about every answer.

::

    scope, receive, send  (ASGI)
       └▶ Exchange   request id · headers · chunks of the body · response with
                     X-Request-ID, Server-Timing and, where the connection must end, Connection: close

The hot routes work on this directly. Everything else goes through FastAPI, with `Exchange.receive`
and `Exchange.send` in between.

Source: ASGI 3.0 HTTP specification; Server-Timing (W3C); RFC 9112 section 9.6 (closing in stages).
"""

from __future__ import annotations

import asyncio
import itertools
import os
import re
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, Literal, Protocol, TypeAlias, cast

from starlette.types import Message, Receive, Scope, Send

from service.api.numerals import whole_number
from service.api.problems import problem_response
from service.errors import Reason, RequestError, SlowClient
from service.tracing import Trace, parse_traceparent

# The ASGI extension by which `service.server` offers to call back when the client leaves: cheaper than
# a task for each request that waits for ``http.disconnect``. Its ``watch`` takes the function to call.
DISCONNECT_EXTENSION: Final = "foldserve.disconnect"
# Where in the scope `service.server` says when the request's first byte was read (`time.monotonic`). In an
# overload requests wait for their turn on the event loop, and that wait counts against their deadline.
RECEIVED_KEY: Final = "foldserve.received"

Header: TypeAlias = tuple[bytes, bytes]
OnLeave: TypeAlias = Callable[[], object]

# What other systems use as ids, and nothing that could forge a log line or a header.
_WELL_FORMED_ID = re.compile(rb"[A-Za-z0-9._:/+=@-]{1,128}")
_CLOSE: Final = (b"connection", b"close")
# After an early refusal the rest of the body is read and thrown away for so long: closing at once
# would reset the connection, and the client would never see why.
_LINGER_S = 2.0
_SHORT_BODY_BYTES = 65_536

_NONE: Final[Mapping[str, str]] = MappingProxyType({})

_id_prefix = os.urandom(6).hex()
_id_numbers = itertools.count(1)


class ClientLeft(Exception):
    """The client closed its connection before it was answered. Nobody is left to be told."""

    def __init__(self, stage: Literal["receive", "decode", "queue"]) -> None:
        super().__init__(f"the client left during {stage}")
        self.stage = stage


def make_request_id() -> str:
    """An id that is unique among all processes: a random prefix and a number."""
    return f"{_id_prefix}-{next(_id_numbers):08x}"


def is_well_formed_id(given: bytes) -> bool:
    """Whether a client may name its request so, in headers and in the log."""
    return _WELL_FORMED_ID.fullmatch(given) is not None


class Conversation(Protocol):
    """What is told of every request, whatever carried it."""

    @property
    def request_id(self) -> str:
        """Its name in the log."""

    @property
    def method(self) -> str:
        """The HTTP method, or what stands for it."""

    @property
    def route(self) -> str:
        """The route template, for metrics and logs."""

    @property
    def started(self) -> float:
        """`time.monotonic` at its beginning."""

    @property
    def status(self) -> int:
        """The HTTP status of its end; 0 until there is one."""

    @property
    def has_responded(self) -> bool:
        """Whether it has one."""

    @property
    def timings(self) -> list[tuple[str, float]]:
        """Name and seconds of each stage."""

    @property
    def trace(self) -> Trace | None:
        """Of this request; None where it is not traced."""

    @property
    def trace_id(self) -> str | None:
        """Of the trace that it belongs to, here or at its caller's."""

    @property
    def refused_images(self) -> dict[Reason, int]:
        """How many of its images got an error in their place, by reason."""


class Exchange:
    """One request and its response.

    Attributes:
        method: The HTTP method.
        headers: By lower-case name; the last of several equal ones.
        request_id: Echoed or made.
        started: `time.monotonic` at the first byte, or when the application was called.
        route: The route template, for metrics and logs.
        path_parameters: What stands in the template's places.
        status: Of the response; 0 until it begins.
        timings: Name and seconds of each stage, for Server-Timing.
        trace: Of this request; None where it is not traced.
        refused_images: How many of its images got an error in their place, by reason.
        must_close: Whether the connection ends with this response.
        is_body_read: Whether nothing more will come.
        held_bytes: Room that its body takes; see `service.api.body`.
    """

    __slots__ = (
        "_receive",
        "_send",
        "_watcher",
        "headers",
        "held_bytes",
        "is_body_read",
        "method",
        "must_close",
        "path_parameters",
        "refused_images",
        "request_id",
        "route",
        "scope",
        "started",
        "status",
        "timings",
        "trace",
    )

    def __init__(self, scope: Scope, receive: Receive, send: Send) -> None:
        self.started: float = scope.get(RECEIVED_KEY) or time.monotonic()
        self.scope = scope
        self.method: str = scope["method"]
        self.headers: dict[bytes, bytes] = dict(scope["headers"])
        self.route = "unmatched"
        self.path_parameters: Mapping[str, str] = _NONE
        self.status = 0
        self.timings: list[tuple[str, float]] = []
        self.trace: Trace | None = None
        self.refused_images: dict[Reason, int] = {}
        self.must_close = False
        self.held_bytes = 0
        self._receive = receive
        self._send = send
        self.is_body_read = not self._announces_body()
        self._watcher: asyncio.Task[None] | None = None
        given = self.headers.get(b"x-request-id")
        if given is not None and is_well_formed_id(given):
            self.request_id = given.decode("ascii")
        else:
            self.request_id = make_request_id()

    def __repr__(self) -> str:
        return f"<Exchange {self.request_id} {self.method} {self.route} {self.status or 'open'}>"

    @property
    def trace_id(self) -> str | None:
        """Of the trace that it belongs to, here or at its caller's."""
        if self.trace is not None:
            return self.trace.trace_id
        caller = parse_traceparent(self.headers.get(b"traceparent"))
        return None if caller is None else caller.trace_id

    @property
    def has_responded(self) -> bool:
        """Whether a response has begun, so that no other can."""
        return self.status != 0

    def _announces_body(self) -> bool:
        length = self.headers.get(b"content-length")
        return b"transfer-encoding" in self.headers or (length is not None and length != b"0")

    def _has_short_body(self) -> bool:
        length = self.headers.get(b"content-length", b"")
        is_sent_unasked = b"expect" not in self.headers
        return is_sent_unasked and whole_number(length, 0, _SHORT_BODY_BYTES) is not None

    # The request.

    async def receive(self) -> Message:
        """The next ASGI message; for FastAPI."""
        message = await self._receive()
        if message["type"] == "http.disconnect" or not message.get("more_body", False):
            self.is_body_read = True
        return message

    async def chunk(self) -> bytes:
        """The next piece of the body.

        Raises:
            ClientLeft: There is none: the connection ended.
        """
        message = await self._receive()
        if message["type"] == "http.disconnect":
            self.is_body_read = True
            raise ClientLeft("receive")
        self.is_body_read = not message.get("more_body", False)
        return cast("bytes", message.get("body", b""))

    def watch(self, on_leave: OnLeave) -> None:
        """Have ``on_leave`` called once if the client leaves from here on. After the body was read."""
        extension = self.scope.get("extensions", {}).get(DISCONNECT_EXTENSION)
        if extension is not None:
            extension["watch"](on_leave)
        else:
            self._watcher = asyncio.create_task(self._wait_for_leave(on_leave))

    async def _wait_for_leave(self, on_leave: OnLeave) -> None:
        while (await self._receive())["type"] != "http.disconnect":
            continue
        on_leave()

    # The response.

    async def respond(self, status: int, headers: Sequence[Header], body: bytes) -> None:
        """Send a whole response."""
        headers = [*headers, (b"content-length", b"%d" % len(body))]
        await self.send({"type": "http.response.start", "status": status, "headers": headers})
        await self.send({"type": "http.response.body", "body": body})

    async def refuse(self, error: RequestError) -> None:
        """Send an error as problem+json, with ``Retry-After`` where waiting helps.

        A short body that was not read yet is read first: cheaper than a new connection.
        """
        if not self.is_body_read and not isinstance(error, SlowClient) and self._has_short_body():
            await self._linger()
        await self.respond(*problem_response(error, self.request_id))

    async def send(self, message: Message) -> None:
        """Send an ASGI message; the start of a response gets the headers that every answer has."""
        if message["type"] == "http.response.start":
            self.status = message["status"]
            await self._send({**message, "headers": [*message.get("headers", ()), *self._own_headers()]})
        elif self.is_body_read or message.get("more_body", False):
            await self._send(message)
        else:
            await self._send({**message, "more_body": True})
            await self._linger()
            await self._send({"type": "http.response.body", "body": b""})

    def _own_headers(self) -> list[Header]:
        headers = [(b"x-request-id", self.request_id.encode()), (b"server-timing", self._server_timing())]
        if self.must_close or not self.is_body_read:
            headers.append(_CLOSE)
        return headers

    def _server_timing(self) -> bytes:
        total = time.monotonic() - self.started
        stages = [*self.timings, ("total", total)]
        return ", ".join([f"{name};dur={seconds * 1e3:.3f}" for name, seconds in stages]).encode()

    async def _linger(self) -> None:
        """Read and throw away what the client still sends, for a while."""
        try:
            async with asyncio.timeout(_LINGER_S):
                while not self.is_body_read:
                    await self.receive()
        except TimeoutError:
            return

    def close(self) -> None:
        """Stop watching for the client."""
        if self._watcher is not None:
            self._watcher.cancel()


Endpoint: TypeAlias = Callable[[Exchange], Awaitable[None]]
