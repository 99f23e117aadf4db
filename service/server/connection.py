"""One HTTP connection: uvicorn's, with what it leaves out.

Deadlines and limits for the headers, refusals as problem+json, and a call when the client leaves.
"""

from __future__ import annotations

import asyncio
import select
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Final, cast

import httptools
from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from service.api.exchange import DISCONNECT_EXTENSION, RECEIVED_KEY, OnLeave, make_request_id
from service.errors import HeadersTooLarge, MalformedBody, Overloaded, RequestError, SlowClient
from service.server.door import Door, whole_response

# How long what a refused client still sends is thrown away before its connection is closed: closing at once
# would reset it, and the client would never see why.
_LINGER_S: Final = 1.0
# Connections come and go; a second later there may be room.
_RETRY_S: Final = 1.0

# As uvicorn writes it, at once and before the response.
_CONTINUE: Final = b"HTTP/1.1 100 Continue\r\n\r\n"
_VERSIONS: Final = ("1.0", "1.1")
_NO_HTTP: Final = "this is not a valid HTTP/1.1 request"


class _OneWrite:
    """A transport that holds the head of a response back until its body comes.

    uvicorn writes them one by one, and each write is a system call and a packet: a third of what a small
    request costs.
    """

    __slots__ = ("_head", "_is_head_due", "_transport")

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._head: bytes | None = None
        self._is_head_due = True

    def write(self, data: bytes) -> None:
        """Keep the head, write everything else."""
        if self._head is not None:
            self._transport.write(self._head + data)
            self._head = None
        elif self._is_head_due and data != _CONTINUE:
            self._head = data
            self._is_head_due = False
        else:
            self._transport.write(data)

    def close(self) -> None:
        """Close, with a head that never got its body."""
        if self._head is not None:
            self._transport.write(self._head)
            self._head = None
        self._transport.close()

    def is_closing(self) -> bool:
        """As of the transport."""
        return self._transport.is_closing()


@dataclass(frozen=True, slots=True)
class ConnectionLimits:
    """What a connection may do before its headers are complete.

    Attributes:
        header_timeout_s: From the connection, or the first byte of a further request, to the end of the
            headers.
        max_header_bytes: Request line and headers together; chunk extensions, and trailers, about so much.
        max_connections: Open at once.
        door: Asked about whole requests while it is watched.
        on_refusal: Told of every refusal that never reached the application.
        on_end: Told when the connection has ended.
    """

    header_timeout_s: float
    max_header_bytes: int
    max_connections: int
    door: Door
    on_refusal: Callable[[RequestError, str], None]
    on_end: Callable[[], None] | None = None


class Connection(HttpToolsProtocol):
    """uvicorn's HTTP connection, with limits. In the usual case they cost two comparisons a request."""

    def __init__(self, limits: ConnectionLimits, **arguments: Any) -> None:
        super().__init__(**arguments)
        self._limits = limits
        self._door = limits.door
        self._head_bytes = 0
        self._idle_since = 0.0
        self._is_in_head = False
        self._has_begun = False
        self._head_timer: asyncio.TimerHandle | None = None
        self._refusal: RequestError | None = None
        self._is_refused = False
        self._owed: RequestError | None = None
        self._has_offer = False
        self._on_leave: OnLeave | None = None
        self._extensions = {DISCONNECT_EXTENSION: {"watch": self._watch}}

    def _watch(self, on_leave: OnLeave) -> None:
        """The disconnect extension; see `service.api.exchange`."""
        if self.transport.is_closing():
            on_leave()
        else:
            self._on_leave = on_leave

    @property
    def is_fresh(self) -> bool:
        """Whether it has not carried a request yet."""
        return not (self._has_begun or self._is_refused)

    @property
    def is_idle(self) -> bool:
        """Whether no request is being worked on."""
        return self.cycle is None or self.cycle.response_complete

    def has_unread(self) -> bool:
        """Whether the client has said something that was not read yet; closing now would reset it."""
        if self.transport.is_closing():
            return False
        poll = select.poll()
        poll.register(self.transport.get_extra_info("socket"), select.POLLIN)
        return bool(poll.poll(0))

    # asyncio's side.

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Start the clock of the first request."""
        super().connection_made(cast("asyncio.Transport", transport))
        if len(self.connections) > self._limits.max_connections:
            self._refuse(Overloaded(f"{self._limits.max_connections} connections are open already", _RETRY_S))
        else:
            self._arm()

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever works for this client."""
        self._disarm()
        on_leave, self._on_leave = self._on_leave, None
        super().connection_lost(exc)
        if on_leave is not None:
            on_leave()
        if self._limits.on_end is not None:
            self._limits.on_end()

    def data_received(self, data: bytes) -> None:
        """Parse, then see whether the headers stay within their limits."""
        if self._is_refused:
            return
        if self._door.is_watched and self._is_between() and self._is_refused_at_door(data):
            return
        self._head_bytes += len(data)
        self._feed(data)
        if self._is_in_head and not self._is_refused:
            if self._head_bytes > self._limits.max_header_bytes:
                self._refuse(self._headers_too_large())
            elif self._head_timer is None:
                self._arm()
        elif self._head_bytes > self._limits.max_header_bytes and self._is_in_body():
            # Chunk extensions and trailers: nobody reads them, and no limit of the body counts them.
            self._refuse(self._headers_too_large())

    def _feed(self, data: bytes) -> None:
        """As uvicorn does, but every offer of another protocol is declined: the request is read without it.

        httptools takes what follows the headers of such a request for that protocol, and so loses its body.
        Source: RFC 9110, section 7.8.
        """
        self._unset_keepalive_if_required()
        try:
            self.parser.feed_data(data)
        except httptools.HttpParserUpgrade as offer:
            self._has_offer = False
            self._feed(self._head_without_offer() + data[offer.args[0] :])
        except httptools.HttpParserError:
            self.send_400_response("")

    def _head_without_offer(self) -> bytes:
        line = b"%s %s HTTP/1.1" % (self.parser.get_method(), self.url)
        headers = (b"%s: %s" % header for header in self.headers if header[0] != b"upgrade")
        return b"\r\n".join((line, *headers, b"", b""))

    # The parser's side.

    def on_message_begin(self) -> None:
        """A further request begins."""
        super().on_message_begin()
        self._is_in_head = True
        scope = cast("dict[str, object]", self.scope)
        scope["extensions"] = self._extensions
        scope[RECEIVED_KEY] = time.monotonic()

    def on_headers_complete(self) -> None:
        """Hand the request to the application, unless its head must be refused."""
        self._is_in_head = False
        self._disarm()
        self._refusal = self._why_not_this_head()
        if self._refusal is not None:
            raise httptools.HttpParserError(self._refusal.detail)
        self._head_bytes = 0
        self._has_offer = self.parser.should_upgrade()
        if self._has_offer:
            return  # it comes again
        self._has_begun = True
        super().on_headers_complete()
        # `write`, `close` and `is_closing` is all that a cycle asks of its transport.
        self.cycle.transport = cast("asyncio.Transport", _OneWrite(self.transport))

    def on_body(self, body: bytes) -> None:
        """A piece of the body; what is counted from here on is none."""
        self._head_bytes = 0
        super().on_body(body)

    def on_message_complete(self) -> None:
        """The body has ended, unless there is an offer, which hides it."""
        if not self._has_offer:
            super().on_message_complete()

    def _is_in_body(self) -> bool:
        return self.cycle is not None and self.cycle.more_body and not self._is_refused

    def on_response_complete(self) -> None:
        """Nobody works for this client any more."""
        self._on_leave = None
        self._head_bytes = 0
        super().on_response_complete()
        if self._owed is not None and self.is_idle:
            self._refuse(self._owed)

    def _why_not_this_head(self) -> RequestError | None:
        limit = self._limits.max_header_bytes
        if self._head_bytes > limit and self._exact_head_bytes() > limit:
            return self._headers_too_large()
        version = self.parser.get_http_version()
        if version not in _VERSIONS or self.parser.get_method() == b"CONNECT":
            return MalformedBody(_NO_HTTP)
        hosts = [name for name, _ in self.headers if name == b"host"]
        if len(hosts) != 1 and version == "1.1":  # RFC 9112, section 3.2
            return MalformedBody(f"a request of HTTP/1.1 has one header `Host`; this one has {len(hosts)}")
        return None

    def _exact_head_bytes(self) -> int:
        """What was received may hold a body, or another request, as well."""
        return len(self.url) + sum(len(name) + len(value) + 4 for name, value in self.headers)

    def _headers_too_large(self) -> RequestError:
        return HeadersTooLarge(f"the headers exceed the limit of {self._limits.max_header_bytes} bytes")

    # Refusals before there is a request.

    def _is_between(self) -> bool:
        """Whether what comes next is the beginning of a request, and nothing else is going on."""
        cycle = self.cycle
        return not self._is_in_head and (cycle is None or (cycle.response_complete and not cycle.more_body))

    def _is_refused_at_door(self, data: bytes) -> bool:
        """Answer a request that would be refused anyway, as cheaply as can be; the connection stays."""
        response = self._door.refusal(data)
        if response is None or self.transport.is_closing():
            return False
        self._disarm()
        self._has_begun = True
        self.transport.write(response)
        self._idle_since = self.loop.time()
        if self.timeout_keep_alive_task is None:
            self._keep_alive(self.timeout_keep_alive)
        return True

    def timeout_keep_alive_handler(self) -> None:
        """Close an idle connection; refusals at the door have let its timer run on, which spares them two."""
        left_s = self._idle_since + self.timeout_keep_alive - self.loop.time()
        if left_s > 0:
            self._keep_alive(left_s)
        else:
            super().timeout_keep_alive_handler()

    def _keep_alive(self, seconds: float) -> None:
        self.timeout_keep_alive_task = self.loop.call_later(seconds, self.timeout_keep_alive_handler)

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
        self._refuse(self._refusal or MalformedBody(_NO_HTTP))

    def _refuse(self, error: RequestError) -> None:
        """Answer without the application, and close in stages. Who asked before is answered before."""
        self._is_refused = True
        self._disarm()
        if not (self.is_idle or self.cycle.more_body):
            self._owed = error
            return
        self._owed = None
        if self.transport.is_closing():
            return
        request_id = make_request_id()
        self.transport.write(whole_response(error, request_id, (b"connection", b"close")))
        self._limits.on_refusal(error, request_id)
        self.loop.call_later(_LINGER_S, self.transport.close)
