"""The C library's free memory: what a fold no longer holds, given back to the system.

glibc keeps freed blocks of up to 32 MB for itself: 64 MB of them, and every hole between blocks in use. The
float64 copies of a fold are of that size, so what it held at different times would add up, by chance to twice
as much.
"""

from __future__ import annotations

import ctypes
import sys

# Elements of a float64 tensor of 2 MB: smaller ones leave no holes worth the millisecond.
LARGE = 1 << 18


def give_back() -> None:
    """Give free memory back, where the C library is one that keeps it; changes no value and no setting."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None) if sys.platform == "linux" else None
    if trim is not None:
        trim(0)
