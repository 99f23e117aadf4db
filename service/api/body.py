"""A request's body, read within limits: of its size, of its time, and of all bodies held at once.

::

    announced ≤ max_body_bytes?  no ─▶ BodyTooLarge    before a byte of it is read
    room for it among the others? no ─▶ Overloaded
    chunks … within the timeout   no ─▶ SlowClient
    the client leaves             ─▶ ClientLeft
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

from service.api.exchange import Exchange
from service.api.numerals import whole_number
from service.errors import BodyTooLarge, MalformedBody, Overloaded, SlowClient

# Bodies come and go with their requests; a second later there may be room.
_RETRY_S = 1.0


@dataclass(frozen=True, slots=True)
class BodyLimits:
    """The settings ``max_body_bytes``, ``body_timeout_ms`` and ``max_bytes_in_flight``."""

    max_bytes: int
    timeout_s: float
    max_held_bytes: int


class BodyReader:
    """Reads the bodies of one application.

    Attributes:
        held_bytes: Of all bodies that are being read or worked on; at most ``max_held_bytes``.
    """

    def __init__(self, limits: BodyLimits) -> None:
        self._limits = limits
        self.held_bytes = 0

    async def read(self, exchange: Exchange) -> bytes:
        """The whole body; `release` gives its room back.

        Raises:
            BodyTooLarge: Announced or found to be larger than the limit; the rest is not read.
            Overloaded: Too many bytes are held already.
            SlowClient: Not complete in time.
            MalformedBody: A Content-Length that is no number.
            ClientLeft: The connection ended before the body did.
        """
        self._hold(exchange, self._announced(exchange))
        timeout_s = self._limits.timeout_s
        try:
            async with asyncio.timeout(timeout_s):
                chunk = await exchange.chunk()
                if exchange.is_body_read and len(chunk) <= exchange.held_bytes:
                    return chunk
                return await self._joined(exchange, chunk)
        except TimeoutError as exc:
            raise SlowClient(f"the body was not complete after {timeout_s:g} s") from exc

    def release(self, exchange: Exchange) -> None:
        """The body is not needed any more. Harmless when repeated."""
        self.held_bytes -= exchange.held_bytes
        exchange.held_bytes = 0

    def _announced(self, exchange: Exchange) -> int:
        """Content-Length; 0 where there is none."""
        size = whole_number(exchange.headers.get(b"content-length", b"0"), 0, sys.maxsize)
        if size is None:
            raise MalformedBody("Content-Length is no number of bytes")
        if size > self._limits.max_bytes:
            raise BodyTooLarge(f"a body of {size} bytes exceeds the limit of {self._limits.max_bytes}")
        return size

    def _hold(self, exchange: Exchange, size: int) -> None:
        if self.held_bytes + size > self._limits.max_held_bytes:
            raise Overloaded(
                f"requests in flight hold {self.held_bytes} bytes; there is no room for {size} more", _RETRY_S
            )
        self.held_bytes += size
        exchange.held_bytes += size

    async def _joined(self, exchange: Exchange, first: bytes) -> bytes:
        chunks, size, limit = [first], len(first), self._limits.max_bytes
        while True:
            if size > limit:
                raise BodyTooLarge(f"the body exceeds the limit of {limit} bytes")
            if size > exchange.held_bytes:  # it was not announced
                self._hold(exchange, size - exchange.held_bytes)
            if exchange.is_body_read:
                return b"".join(chunks)
            chunks.append(await exchange.chunk())
            size += len(chunks[-1])
