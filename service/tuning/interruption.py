"""Ctrl-C during a search: heard whenever it comes, obeyed where nothing is half done.

::

    SIGINT or SIGTERM ─▶ remembered ─▶ the next checkpoint raises `Interrupted` ─▶ report of what is known
    the second one    ─▶ ends the program at once

A handler that raises wherever the program happens to be would lose what has just been measured, or the
report that is being written.
"""

from __future__ import annotations

import signal
from types import FrameType, TracebackType
from typing import Final

from service.errors import FoldserveError

_SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)


class Interrupted(FoldserveError):
    """The search was told to end."""


class Interruption:
    """The signals of a search, for the length of a block."""

    def __init__(self) -> None:
        self._is_heard = False

    def __enter__(self) -> Interruption:
        self._before = {number: signal.signal(number, self._hear) for number in _SIGNALS}
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def checkpoint(self) -> None:
        """Nothing, while there was no signal.

        Raises:
            Interrupted: There was one.
        """
        if self._is_heard:
            raise Interrupted("interrupted before there was anything to report")

    def _hear(self, number: int, _: FrameType | None) -> None:
        if self._is_heard:
            raise SystemExit(128 + number)
        self._is_heard = True
