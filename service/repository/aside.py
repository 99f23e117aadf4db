"""Work beside the traffic: on a thread of its own, which the process does not wait for when it ends.

Where the CPUs are busy, patient work takes a tenth of one. Otherwise requests would wait for whole slices of
the scheduler's while a model is loaded.

Source: nice(2) and sched(7): on Linux every thread has its own, and hands it on to those that it starts.
"""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Final, TypeVar

T = TypeVar("T")

_NICER: Final = 10
_NICEST: Final = 19


async def aside(work: Callable[[], T], name: str, *, is_patient: bool = True) -> T:
    """What ``work`` returns, or raises, on a thread of this name.

    When the waiter is cancelled the work goes on, and its result is thrown away.

    Args:
        work: Patient only if it starts no threads that are to be as quick as others.
        name: Of the thread.
        is_patient: Whether requests go first.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
            if is_patient:
                _yield_to_others()
            result = work()
        except BaseException as error:  # whatever it is, the waiter must hear of it
            post(_fail, future, error)
        else:
            post(_finish, future, result)

    def post(callback: Callable[..., None], *arguments: object) -> None:
        with suppress(RuntimeError):  # the loop is closed: nobody is left to be told
            loop.call_soon_threadsafe(callback, *arguments)

    threading.Thread(target=run, name=name, daemon=True).start()
    return await future


def _yield_to_others() -> None:
    if sys.platform == "linux":
        this_thread = threading.get_native_id()
        niceness = min(os.getpriority(os.PRIO_PROCESS, this_thread) + _NICER, _NICEST)
        os.setpriority(os.PRIO_PROCESS, this_thread, niceness)


def _finish(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
