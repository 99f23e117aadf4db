"""Runs the comparison in processes of their own: a tool that crashes takes only its process with it."""

from __future__ import annotations

import contextlib
import multiprocessing
import warnings
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from multiprocessing.connection import Connection

import torch
from rich.progress import Progress

from benchmarks.folding.comparison import Result, compare, crashed
from benchmarks.folding.tools import ALL_TOOLS
from tests.folding.collection import COLLECTION, Network

Job = tuple[str, int]  # a network and the position of a tool in ALL_TOOLS


def _work(jobs: Sequence[Job], results: Connection) -> None:
    """In a process of its own: one result a job, sent as soon as it is known."""
    warnings.simplefilter("ignore")  # the tools' own, of each other
    torch.set_num_threads(1)
    for name, tool in jobs:
        results.send(compare(COLLECTION[name], ALL_TOOLS[tool]))
    results.close()


def _results(jobs: Sequence[Job]) -> Iterator[Result]:
    """One a job. A tool that crashes loses its process, and the next job starts another."""
    context = multiprocessing.get_context("spawn")
    while jobs:
        receiving, sending = context.Pipe(duplex=False)
        process = context.Process(target=_work, args=(jobs, sending), daemon=True)
        process.start()
        sending.close()
        done = 0
        with contextlib.suppress(EOFError):
            for _ in jobs:
                yield receiving.recv()
                done += 1
        process.join()
        if done < len(jobs):
            name, tool = jobs[done]
            yield crashed(COLLECTION[name], ALL_TOOLS[tool])
            done += 1
        jobs = jobs[done:]


def measure(networks: Sequence[Network], processes: int) -> list[Result]:
    """All tools on all networks, in ``processes`` processes side by side."""
    shares = [
        [(network.name, tool) for network in networks[i::processes] for tool in range(len(ALL_TOOLS))]
        for i in range(processes)
    ]
    with Progress() as progress, ThreadPoolExecutor(processes) as threads:
        task = progress.add_task("networks × tools", total=sum(map(len, shares)))

        def collect(jobs: Sequence[Job]) -> list[Result]:
            results = []
            for result in _results(jobs):
                results.append(result)
                progress.advance(task)
            return results

        return [result for results in threads.map(collect, shares) for result in results]
