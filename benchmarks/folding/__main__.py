"""``python -m benchmarks.folding``: all tools on all networks, as ``docs/folding-comparison.md``."""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import torch
from rich.progress import track

from benchmarks.folding.comparison import Result, compare
from benchmarks.folding.table import page
from tests.folding.collection import COLLECTION, Network


def _compare(name: str) -> list[Result]:
    warnings.simplefilter("ignore")  # the tools' own, of each other
    torch.set_num_threads(1)
    return compare(COLLECTION[name])


def measure(networks: Sequence[Network], processes: int) -> list[Result]:
    """All results; a tool that kills its process ends the run, which says which network it was."""
    names = [network.name for network in networks]
    with ProcessPoolExecutor(processes) as pool:
        results = pool.map(_compare, names)
        return [result for group in track(results, "networks", len(names)) for result in group]


def main() -> None:
    """Measure, print, and write the page."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.folding", description=__doc__)
    parser.add_argument("names", nargs="*", help="networks or topics; all when none is given")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="where the page goes; printed if not given"
    )
    parser.add_argument("--processes", type=int, default=2)
    options = parser.parse_args()
    wanted = set(options.names)
    networks = [n for n in COLLECTION.values() if not wanted or n.name in wanted or n.topic in wanted]
    results = measure(networks, options.processes)
    for result in results:
        if result.outcome in {"wrong", "failed"}:
            print(f"{result.tool}: {result.network}: {result.outcome} {result.message.partition(chr(10))[0]}")
        if result.outcome == "reached" and (result.left or 0) < COLLECTION[result.network].fewest:
            print(f"{result.tool}: {result.network}: {result.left} maps left, fewer than the stated optimum")
    text = page(networks, results)
    if options.write:
        options.write.write_text(text, encoding="utf-8")
    else:
        print(text)


if __name__ == "__main__":
    main()
