"""The end of a process: at once where a thread is at work that nobody waits for."""

from __future__ import annotations

import subprocess
import sys

import pytest

PROGRAM = """
import threading, sys
from service.server.farewell import leave
if sys.argv[1]:
    threading.Thread(target=threading.Event().wait, daemon=True).start()
print("said before")
leave(3)
print("torn down")
"""


@pytest.mark.parametrize(
    ("thread", "status", "said"),
    [("at work", 3, ["said before"]), ("", 0, ["said before", "torn down"])],
    ids=["at work", "alone"],
)
def test_nothing_is_torn_down_around_a_thread_at_work(thread: str, status: int, said: list[str]) -> None:
    ended = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", PROGRAM, thread], capture_output=True, text=True, timeout=60, check=False
    )
    assert (ended.returncode, ended.stdout.splitlines(), ended.stderr) == (status, said, "")
