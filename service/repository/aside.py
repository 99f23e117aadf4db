"""Work beside the traffic: on a thread of its own, which the process does not wait for when it ends."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import TypeVar

T = TypeVar("T")


async def aside(work: Callable[[], T], name: str) -> T:
    """What ``work`` returns, or raises, on a thread of this name.

    When the waiter is cancelled the work goes on, and its result is thrown away.
    """
    loop = asyncio.get_running_loop()
    future: asyncio.Future[T] = loop.create_future()

    def run() -> None:
        try:
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


def _finish(future: asyncio.Future[T], result: T) -> None:
    if not future.done():
        future.set_result(result)


def _fail(future: asyncio.Future[T], error: BaseException) -> None:
    if not future.done():
        future.set_exception(error)
