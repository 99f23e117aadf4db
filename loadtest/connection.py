"""One HTTP/1.1 connection that is given whole requests as bytes and hands back whole answers."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import Self
from urllib.parse import SplitResult

import httptools

from loadtest.bodies import Body


@dataclass(frozen=True, slots=True)
class Answer:
    """What came back; status 0: the connection broke first."""

    status: int
    content: bytes
    server_timing: str


BROKEN = Answer(0, b"", "")
OnAnswer = Callable[["Connection", Answer], None]


def request_bytes(address: SplitResult, path: str, body: Body) -> bytes:
    """The request as it goes over the wire, made once and sent many times."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: {address.netloc}\r\n"
        f"Content-Type: {body.content_type}\r\nContent-Length: {len(body.content)}\r\n\r\n"
    )
    return head.encode("ascii") + body.content


class Connection(asyncio.Protocol):
    """Takes one request at a time; `on_answer` is called exactly once for each.

    Attributes:
        is_open: Whether another request can be sent.
    """

    def __init__(self) -> None:
        self.is_open = False
        self._transport: asyncio.Transport
        self._on_answer: OnAnswer | None = None

    @classmethod
    async def open(cls, address: SplitResult) -> Self:
        """A connection to the address.

        Raises:
            OSError: Nobody takes it.
        """
        loop = asyncio.get_running_loop()
        _, connection = await loop.create_connection(
            cls, address.hostname or "", address.port or 80, ssl=address.scheme == "https" or None
        )
        return connection

    def send(self, request: bytes, on_answer: OnAnswer) -> None:
        """Sends a request; its answer goes to ``on_answer``."""
        self._on_answer = on_answer
        self._parser = httptools.HttpResponseParser(self)
        self._content: list[bytes] = []
        self._server_timing = ""
        self._transport.write(request)

    def close(self) -> None:
        """Breaks the connection off; a request under way ends as `BROKEN`."""
        self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Remembers where to write."""
        assert isinstance(transport, asyncio.Transport)  # noqa: S101  # what a TCP connection has
        self._transport = transport
        self.is_open = True

    def data_received(self, data: bytes) -> None:
        """Feeds the parser; what is no HTTP, or no answer to anything, breaks the connection."""
        if self._on_answer is None:  # a server says 408 to who keeps it waiting
            self._transport.abort()
            return
        try:
            self._parser.feed_data(data)
        except httptools.HttpParserError:
            self._transport.abort()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002  # the protocol's signature
        """Ends a request under way."""
        self.is_open = False
        self._finish(BROKEN)

    def on_header(self, name: bytes, value: bytes) -> None:
        """Parser: keeps the one header that is read."""
        if name.lower() == b"server-timing":
            self._server_timing = value.decode("latin-1")

    def on_body(self, body: bytes) -> None:
        """Parser: a piece of the answer."""
        self._content.append(body)

    def on_message_complete(self) -> None:
        """Parser: the whole answer is there."""
        if not self._parser.should_keep_alive():
            self.is_open = False
            self._transport.close()
        self._finish(Answer(self._parser.get_status_code(), b"".join(self._content), self._server_timing))

    def _finish(self, answer: Answer) -> None:
        on_answer, self._on_answer = self._on_answer, None
        if on_answer is not None:
            on_answer(self, answer)
