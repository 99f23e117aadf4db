"""Runs the comparison of all tools on all networks, each tool isolated from the others."""

from __future__ import annotations

import time
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from rich.progress import Progress

from benchmarks.folding.comparison import Result, compare, crashed
from benchmarks.folding.isolation import isolated
from benchmarks.folding.journal import Journal
from benchmarks.folding.tools import ALL_TOOLS
from tests.folding.collection import COLLECTION, Network

Job = tuple[str, int]  # a network and the position of a tool in ALL_TOOLS

# The slowest takes seconds; the first of a process also waits for its imports.
PATIENCE_S = 120.0


def measure(networks: Sequence[Network], journal: Journal[Result], processes: int, limit_s: float) -> bool:
    """All tools on all networks, but for what the journal has already.

    Args:
        networks: Of the collection.
        journal: Gets every result as soon as it is known.
        processes: So many side by side.
        limit_s: No job is begun after so long.

    Returns:
        Whether all is done.
    """
    known = {(result.network, result.tool) for result in journal.results}
    shares = [
        [
            (network.name, place)
            for network in networks[i::processes]
            for place, tool in enumerate(ALL_TOOLS)
            if (network.name, tool.name) not in known
        ]
        for i in range(processes)
    ]
    end = time.monotonic() + limit_s
    with Progress() as progress, ThreadPoolExecutor(processes) as threads:
        task = progress.add_task("networks × tools", total=sum(map(len, shares)))

        def collect(jobs: Sequence[Job]) -> bool:
            for (name, tool), result in zip(jobs, isolated(_compare, jobs, PATIENCE_S), strict=True):
                journal.add(result or crashed(COLLECTION[name], ALL_TOOLS[tool]))
                progress.advance(task)
                if time.monotonic() > end:
                    return (name, tool) == jobs[-1]
            return True

        return all(list(threads.map(collect, shares)))


def _compare(job: Job) -> Result:
    warnings.simplefilter("ignore")  # the tools' own, of each other
    torch.set_num_threads(1)
    name, tool = job
    return compare(COLLECTION[name], ALL_TOOLS[tool])
