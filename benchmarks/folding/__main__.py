"""``python -m benchmarks.folding``: all tools on all networks, as ``docs/folding-comparison.md``.

Results are kept as they come: a comparison that was stopped goes on where it was, unless anything it depends
on has changed since.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Iterable
from pathlib import Path

import benchmarks.folding
import model_export.folding
import tests.folding.collection
from benchmarks.folding.comparison import Result
from benchmarks.folding.journal import Journal, digest_of
from benchmarks.folding.measuring import measure
from benchmarks.folding.table import page
from benchmarks.folding.tools import ALL_TOOLS
from benchmarks.page import add_flag, deliver
from tests.folding.collection import COLLECTION


def main() -> int:
    """Measure, print, and write the page.

    Returns:
        0; 1 when the time was up before all was done.
    """
    parser = _parser()
    options = parser.parse_args()
    wanted = set(options.names)
    if unknown := wanted - COLLECTION.keys() - {network.topic for network in COLLECTION.values()}:
        parser.error(f"no such network or topic: {', '.join(sorted(unknown))}")
    networks = [n for n in COLLECTION.values() if not wanted or n.name in wanted or n.topic in wanted]
    names = {network.name for network in networks}
    sources = (model_export.folding, tests.folding.collection, benchmarks.folding)
    digest = digest_of(
        (Path(str(source.__file__)).parent for source in sources),
        (f"{tool.name} {tool.release}" for tool in ALL_TOOLS),
    )
    journal = Journal(options.journal, digest, Result)
    if not measure(networks, journal, options.processes, 60 * options.minutes):
        print(f"Time is up: {len(journal.results)} results are in {options.journal}. Run it again to go on.")
        return 1
    results = [result for result in journal.results if result.network in names]
    _tell(results)
    text = page(networks, results)
    deliver(text, options.write)
    return 0


def _tell(results: Iterable[Result]) -> None:
    """What is worth a look before the page is believed."""
    for result in results:
        if result.outcome not in {"reached", "short"}:
            print(f"{result.tool}: {result.network}: {result.outcome} {result.message}")
        if result.outcome == "reached" and (result.left or 0) < COLLECTION[result.network].fewest:
            print(f"{result.tool}: {result.network}: {result.left} maps left, fewer than the stated optimum")


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.folding", description=__doc__)
    parser.add_argument("names", nargs="*", help="networks or topics; all when none is given")
    add_flag(parser)
    parser.add_argument(
        "--journal", type=Path, metavar="FILE", default=Path("reports/folding-comparison.jsonl")
    )
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--minutes", type=float, default=math.inf, help="stop after so long, to go on later")
    return parser


if __name__ == "__main__":
    sys.exit(main())
