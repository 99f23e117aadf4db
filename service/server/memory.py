"""How the C library keeps the memory that requests gave back: so that it stays level, and stays quick.

Pictures come in all sizes, and each is decoded in blocks of its own size. glibc's own ways let the resident
memory of a process that decodes them creep up by a fifth, which looks like a leak and is none:

    one arena for each thread    what one of them gave back, the others cannot use
    thresholds that follow       what was freed stays at the top of the heap, up to 64 MiB of it

One arena is enough here: threads take a few large blocks each and compute on them without the lock. Blocks
up to 32 MiB come from the heap, where their pages are already there: fetching pages anew for every picture
would double the time of a small photograph. What lies free at the top beyond 4 MiB is given back.

Source: mallopt(3).
"""

from __future__ import annotations

import ctypes
import gc
import os
from typing import Final

_MIB: Final = 1024 * 1024

# The parameter's number in malloc.h, its value, and the variable by which an operator decides otherwise.
_OPTIONS: Final = (
    (-8, 1, "MALLOC_ARENA_MAX"),
    (-3, 32 * _MIB, "MALLOC_MMAP_THRESHOLD_"),
    (-1, 4 * _MIB, "MALLOC_TRIM_THRESHOLD_"),
)

# Of objects more than before for the youngest generation, and of looks at the younger one for the others.
_THRESHOLDS: Final = (50_000, 20, 100)


def keep_level() -> None:
    """Set this process's allocator, before there are threads. Other C libraries than glibc are left alone."""
    set_option = getattr(ctypes.CDLL(None), "mallopt", None)
    if set_option is None:
        return
    for number, value, variable in _OPTIONS:
        if variable not in os.environ:
            set_option(number, value)


def spare_what_stays() -> None:
    """Have Python's garbage collector pass over all that is there now, for as long as the process lives.

    Modules and models are some hundred thousand objects; to look through them again takes tens of
    milliseconds, in which nobody is answered. What comes later is looked through more rarely than usual: a
    few batches' objects, which need no collector, are more than its usual threshold, and thousands of open
    connections would be looked through every time. That took a third of the CPU in an overload.

    Source: ``gc.freeze`` and ``gc.set_threshold`` in Python's documentation.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*_THRESHOLDS)
