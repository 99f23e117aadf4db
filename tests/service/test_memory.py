"""The allocator of a process that serves: what it was told, as the C library itself reports it."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys

import pytest

# Threads that allocate at the same moment, each of which gets an arena of its own if there may be several;
# and a block as large as a photograph. Then glibc writes what it did to stderr.
PROGRAM = """
import ctypes, sys, threading
if sys.argv[1:] == ["level"]:
    from service.server.memory import keep_level
    keep_level()
library = ctypes.CDLL(None)
library.malloc.restype, library.free.argtypes = ctypes.c_void_p, [ctypes.c_void_p]
barrier = threading.Barrier(4)
def allocate():
    barrier.wait(10)
    blocks = [library.malloc(2000) for _ in range(100)]
    barrier.wait(10)
threads = [threading.Thread(target=allocate) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
library.free(library.malloc(16 * 2**20))
library.malloc_stats()
"""
LARGE_BYTES = 16 * 2**20

pytestmark = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="for glibc's allocator")


def allocator(*arguments: str, **environment: str) -> tuple[int, int]:
    """Arenas, and the most bytes that were ever mapped beside the heap."""
    said = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", PROGRAM, *arguments],
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
        env={**os.environ, **environment},
    ).stderr
    mapped = re.search(r"max mmap bytes\s*=\s*(\d+)", said)
    assert mapped is not None
    return len(re.findall(r"^Arena \d+:", said, re.MULTILINE)), int(mapped[1])


def test_the_allocator_keeps_one_arena_and_reuses_large_blocks() -> None:
    arenas, mapped = allocator()
    assert (arenas > 1, mapped >= LARGE_BYTES) == (True, True)  # glibc's own ways
    arenas, mapped = allocator("level")
    assert (arenas, mapped < LARGE_BYTES) == (1, True)


def test_what_an_operator_says_by_glibcs_own_variables_holds() -> None:
    arenas, _ = allocator("level", MALLOC_ARENA_MAX="8")
    assert arenas > 1


def test_what_stays_is_not_looked_through_again() -> None:
    program = (
        "import gc; from service.server.memory import spare_what_stays; before = len(gc.get_objects()); "
        "spare_what_stays(); print(before, gc.get_freeze_count(), len(gc.get_objects()))"
    )
    printed = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], capture_output=True, text=True, check=True
    ).stdout
    before, frozen, left = map(int, printed.split())
    assert frozen > 0.5 * before
    assert left < 0.1 * before
