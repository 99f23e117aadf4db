"""Work beside the traffic: on its own thread, and behind the requests where the CPU does not do for all."""

from __future__ import annotations

import os
import sys
import threading

import pytest

from service.engine import EngineOptions
from service.repository.aside import aside


def niceness() -> int:
    return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a process has one for all its threads")
async def test_patient_work_lets_requests_go_first() -> None:
    own = niceness()
    assert await aside(niceness, "patient") == min(own + 10, 19)
    assert await aside(niceness, "impatient", is_patient=False) == own
    assert niceness() == own


@pytest.mark.parametrize(
    ("threads", "cpus", "has_one"),
    [(1, None, True), (None, 1, True), (None, None, False), (2, 4, False), (4, 1, False)],
)
def test_only_sessions_of_one_thread_are_built_patiently(
    threads: int | None, cpus: int | None, has_one: bool
) -> None:
    assert EngineOptions(threads=threads, cpus=cpus).has_one_thread is has_one


async def test_what_fails_there_is_raised_here() -> None:
    with pytest.raises(ZeroDivisionError):
        await aside(lambda: 1 // 0, "fails")
