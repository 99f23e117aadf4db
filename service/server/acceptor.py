"""Taking connections from the kernel: many in a turn of the event loop.

The event loop's own server takes one a turn. When turns are long, because the service is overloaded, new
connections would then wait for seconds in a queue of the kernel's that overflows, where no deadline holds and
nobody can be refused.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
from collections.abc import Callable
from typing import Final

logger = logging.getLogger(__name__)

# So many in one turn; then those are heard who are there already.
_ACCEPTS_A_TURN: Final = 256
# Out of descriptors: some will be given back.
_RETRY_S: Final = 0.01


class Acceptor:
    """Takes the connections of one listener. Made on the running event loop, which it uses from then on.

    Args:
        listener: Non-blocking from here on.
        adopt: Called with each connection.
    """

    def __init__(self, listener: socket.socket, adopt: Callable[[socket.socket], None]) -> None:
        listener.setblocking(False)
        self._listener = listener
        self._adopt = adopt
        self._loop = asyncio.get_running_loop()
        self._pause: asyncio.TimerHandle | None = None
        self._resume()

    @property
    def is_open(self) -> bool:
        """Whether it still takes connections."""
        return self._listener.fileno() >= 0

    def close(self) -> None:
        """Take those that the kernel has let in, then close the listener."""
        if self._pause is None:
            self._loop.remove_reader(self._listener.fileno())
        else:
            self._pause.cancel()
        with contextlib.suppress(OSError):  # out of descriptors: these are lost
            while self._take_one():
                continue
        self._listener.close()

    def _resume(self) -> None:
        self._pause = None
        self._loop.add_reader(self._listener.fileno(), self._take)

    def _take(self) -> None:
        for _ in range(_ACCEPTS_A_TURN):
            try:
                if not self._take_one():
                    return
            except OSError as error:
                logger.error("cannot accept a connection: %s", error)
                self._loop.remove_reader(self._listener.fileno())
                self._pause = self._loop.call_later(_RETRY_S, self._resume)
                return

    def _take_one(self) -> bool:
        """Whether there was one."""
        try:
            connection, _ = self._listener.accept()
        except (BlockingIOError, ConnectionAbortedError):
            return False
        self._adopt(connection)
        return True
