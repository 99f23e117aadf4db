"""Runs the comparison of all tools on all networks, each tool isolated from the others."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor

import torch
from rich.progress import Progress

from benchmarks.folding.comparison import Result, compare, crashed
from benchmarks.folding.isolation import isolated
from benchmarks.folding.tools import ALL_TOOLS
from tests.folding.collection import COLLECTION, Network

Job = tuple[str, int]  # a network and the position of a tool in ALL_TOOLS


def measure(networks: Sequence[Network], processes: int) -> list[Result]:
    """All tools on all networks, in ``processes`` processes side by side."""
    tools = range(len(ALL_TOOLS))
    shares = [
        list(itertools.product((network.name for network in networks[i::processes]), tools))
        for i in range(processes)
    ]
    with Progress() as progress, ThreadPoolExecutor(processes) as threads:
        task = progress.add_task("networks × tools", total=sum(map(len, shares)))

        def collect(jobs: Sequence[Job]) -> list[Result]:
            results = []
            for (name, tool), result in zip(jobs, isolated(_compare, jobs), strict=True):
                results.append(result or crashed(COLLECTION[name], ALL_TOOLS[tool]))
                progress.advance(task)
            return results

        return [result for results in threads.map(collect, shares) for result in results]


def _compare(job: Job) -> Result:
    warnings.simplefilter("ignore")  # the tools' own, of each other
    torch.set_num_threads(1)
    name, tool = job
    return compare(COLLECTION[name], ALL_TOOLS[tool])
