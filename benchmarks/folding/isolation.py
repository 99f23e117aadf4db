"""Runs jobs in a process of their own: one that crashes or hangs takes only its process with it.

::

    jobs ──▶ process ──▶ one result a job, sent as soon as it is known
                │ gone, or silent for too long?
                └──▶ None for the job it was at, and another process for those after it
"""

from __future__ import annotations

import multiprocessing
from collections.abc import Callable, Iterator, Sequence
from multiprocessing.connection import Connection
from typing import TypeVar

J = TypeVar("J")
R = TypeVar("R")


def isolated(work: Callable[[J], R], jobs: Sequence[J], patience_s: float) -> Iterator[R | None]:
    """One result a job, in order; None for a job that brought its process down, or took too long.

    Args:
        work: A module's own function, so that a new process finds it. What it raises brings its process down.
        jobs: What it is called with, picklable.
        patience_s: How long one job may take, its process's start included.
    """
    context = multiprocessing.get_context("spawn")
    while jobs:
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=_send_results, args=(work, jobs, sending), daemon=True)
        process.start()
        sending.close()
        done = 0
        try:
            while done < len(jobs) and receiving.poll(patience_s):
                result: R = receiving.recv()
                done += 1
                yield result
        except EOFError:
            pass
        finally:  # also when nobody wants the other results
            process.kill()
            process.join()
            receiving.close()
        if done < len(jobs):
            yield None
        jobs = jobs[done + 1 :]


def _send_results(work: Callable[[J], R], jobs: Sequence[J], results: Connection) -> None:
    for job in jobs:
        results.send(work(job))
    results.close()
