"""Runs jobs in a process of their own: one that crashes takes only its process with it.

::

    jobs ──▶ process ──▶ one result a job, sent as soon as it is known
                │ gone in the middle?
                └──▶ None for the job it was at, and another process for those after it
"""

from __future__ import annotations

import contextlib
import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import TypeVar

J = TypeVar("J")
R = TypeVar("R")


def isolated(work: Callable[[J], R], jobs: Sequence[J]) -> Iterator[R | None]:
    """One result a job, in order; None for a job that brought its process down.

    Args:
        work: A module's own function, so that a new process finds it. What it raises brings its process down.
        jobs: What it is called with, picklable.
    """
    context = multiprocessing.get_context("spawn")
    while jobs:
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=_send_results, args=(work, jobs, sending), daemon=True)
        process.start()
        sending.close()
        done = 0
        with contextlib.suppress(EOFError):
            for _ in jobs:
                yield receiving.recv()
                done += 1
        process.join()
        if done < len(jobs):
            yield None
        jobs = jobs[done + 1 :]


def _send_results(work: Callable[[J], R], jobs: Sequence[J], results: Connection) -> None:
    for job in jobs:
        results.send(work(job))
    results.close()
