"""The C library's free memory: what a fold no longer holds, given back to the system.

glibc keeps freed blocks of up to 32 MB for itself: 64 MB of them, and every hole between blocks in use. The
float64 copies of a fold are of that size, so what it held at different times would add up, by chance to twice
as much.
"""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Callable

# Half of what a float64 weight of a large layer takes; a trim takes a millisecond.
_STEP_BYTES = 1 << 23


class Turnover:
    """Counts the bytes that come and go, and gives free memory back after every few megabytes of them."""

    def __init__(self) -> None:
        self._bytes = 0
        self._trim = _find_trim()

    def add(self, bytes_passed: int) -> None:
        """So many bytes were allocated since the last call, most of them for a short time."""
        self._bytes += bytes_passed
        if self._bytes >= _STEP_BYTES:
            self.give_back()

    def give_back(self) -> None:
        """Give free memory back where the C library keeps it; changes no value and no setting."""
        self._bytes = 0
        if self._trim is not None:
            self._trim(0)


def _find_trim() -> Callable[[int], int] | None:
    return getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
