"""SIGTERM and SIGINT before there is anybody to obey them.

::

    hold ─▶ the port is bound, the loop is made ─▶ handlers ─▶ release: what came meanwhile comes again

Without it a signal in between would end the process by itself, and with it the connections that the kernel
has taken in already.
"""

from __future__ import annotations

import signal
from typing import Final

SIGNALS: Final = (signal.SIGINT, signal.SIGTERM)

_held: Final[list[int]] = []


def hold_signals() -> None:
    """Remember signals from now on, until somebody else handles them."""
    for number in SIGNALS:
        signal.signal(number, lambda number, _: _held.append(number))


def release_signals() -> None:
    """Raise again what was held; for whoever handles signals now."""
    held = list(_held)
    _held.clear()
    for number in held:
        signal.raise_signal(number)
