"""``python -m benchmarks.folding``: all tools on all networks, as ``docs/folding-comparison.md``."""

from __future__ import annotations

import argparse
from pathlib import Path

from benchmarks.folding.measuring import measure
from benchmarks.folding.table import page
from tests.folding.collection import COLLECTION


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
