"""``python -m tests.folding.collection [name …]``: what the fold reaches, network by network."""

from __future__ import annotations

import argparse
import sys
import traceback
from collections.abc import Iterable

from rich.console import Console
from rich.table import Table

from model_export.records import Objective
from tests.folding.collection import COLLECTION, Network
from tests.folding.collection.judging import Verdict, judge
from tests.folding.collection.test_folding import folder


def _verdict(network: Network, objective: Objective) -> Verdict:
    try:
        return judge(network, folder(objective), fewest=objective == "fewest")
    except Exception as exc:  # the score goes on with the next network
        cause = traceback.extract_tb(exc.__traceback__)[-1]
        text = f"{type(exc).__name__}: {str(exc).splitlines()[0] if str(exc) else ''}"
        return Verdict(0, 0, float("nan"), (f"{text[:90]} ({cause.name})",))


def _table(networks: Iterable[Network], objective: Objective, console: Console) -> int:
    table = Table(
        "network", "fewest", "before", "after", "error", "complaints", title=f"objective={objective}"
    )
    failed = 0
    for network in networks:
        verdict = _verdict(network, objective)
        failed += bool(verdict.complaints)
        numbers = (network.fewest, verdict.before, verdict.after, f"{verdict.error:.0e}")
        table.add_row(network.name, *map(str, numbers), "; ".join(verdict.complaints))
    console.print(table)
    console.print(f"{table.row_count - failed} of {table.row_count} reached")
    return failed


def main() -> int:
    """The exit status: 0 when all networks are reached."""
    parser = argparse.ArgumentParser(prog="python -m tests.folding.collection", description=__doc__)
    parser.add_argument("names", nargs="*", help="networks, or topics; all when none is given")
    parser.add_argument("--objective", choices=["fewest", "speed"], default="fewest")
    options = parser.parse_args()
    wanted = set(options.names)
    if unknown := wanted - COLLECTION.keys() - {network.topic for network in COLLECTION.values()}:
        parser.error(f"no such network or topic: {', '.join(sorted(unknown))}")
    chosen = [n for n in COLLECTION.values() if not wanted or n.name in wanted or n.topic in wanted]
    return int(_table(chosen, options.objective, Console(width=160)) > 0)


if __name__ == "__main__":
    sys.exit(main())
