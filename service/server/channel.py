"""Between the parent and one worker: messages on a stream, connections on a socket that carries descriptors.

::

    parent ── complete, drain, stop, dump, sum, look, looked ──▶ worker    Link: one JSON object a line
           ◀── state, failed, snapshot, ask, spread, seen ──               (state also as a heartbeat)
    parent ── "+" and a connection ────────────▶ worker                    handover: one packet each
           ◀── "-", a connection ended ──
"""

from __future__ import annotations

import asyncio
import socket
from typing import Any, Final, Self, TypeAlias, cast

import orjson

Message: TypeAlias = dict[str, Any]

# How often a worker says that its event loop turns.
HEARTBEAT_S: Final = 1.0

# A snapshot of the metrics is the largest message there is, at about 100 bytes a series.
_MAX_MESSAGE_BYTES: Final = 64 * 1024 * 1024
_HANDED: Final = b"+"
_ENDED: Final = b"-"


class Link:
    """Messages to and from the process at the other end."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    @classmethod
    async def open(cls, end: socket.socket) -> Self:
        """The link over one end of a pair of stream sockets, which it owns from then on."""
        return cls(*await asyncio.open_unix_connection(sock=end, limit=_MAX_MESSAGE_BYTES))

    def send(self, say: str, **content: object) -> None:
        """Say something; at once, as far as the buffers go. Nobody there is no error: `read` tells."""
        if not self._writer.is_closing():
            self._writer.write(orjson.dumps({"say": say, **content}) + b"\n")

    async def read(self) -> Message | None:
        """The next message; None when there is nobody at the other end any more."""
        try:
            line = await self._reader.readline()
        except ConnectionError:
            return None
        return cast("Message", orjson.loads(line)) if line else None

    async def close(self) -> None:
        """Send what was said, and hang up."""
        self._writer.close()
        try:
            await self._writer.wait_closed()
        except ConnectionError:
            return


def hand_over(end: socket.socket, connection: socket.socket) -> bool:
    """Give an accepted connection to the other end; False if that has too many to take already."""
    try:
        socket.send_fds(end, [_HANDED], [connection.fileno()])
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        return False
    return True


def take(end: socket.socket) -> socket.socket | None:
    """A connection that was handed over; None if there is none now, or nobody hands any over."""
    try:
        _, descriptors, _, _ = socket.recv_fds(end, 1, 1)
    except (BlockingIOError, ConnectionResetError):
        return None
    return socket.socket(fileno=descriptors[0]) if descriptors else None


def report_end(end: socket.socket) -> bool:
    """Say that a connection has ended; False if that cannot be said now."""
    try:
        end.send(_ENDED)
    except (BlockingIOError, BrokenPipeError, ConnectionResetError):
        return False
    return True


def count_ends(end: socket.socket) -> int:
    """How many connections have ended since the last time."""
    count = 0
    try:
        while end.recv(1):
            count += 1
    except (BlockingIOError, ConnectionResetError):
        return count
    return count
