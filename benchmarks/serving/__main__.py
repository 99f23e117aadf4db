"""``make bench``: our service beside others. Quiet machine, please: whatever else runs is in the figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks.serving import generator, report, rounds, workloads
from benchmarks.serving.contenders import CONTENDERS, Contender
from benchmarks.serving.limits import Limits
from benchmarks.serving.rounds import Cell
from benchmarks.serving.server import WrongAnswer


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints the table.

    Returns:
        0; 1 when a contender answered wrongly or the load generator is missing.
    """
    options = _parser().parse_args(arguments)
    plan = rounds.Plan(options.rounds, options.seconds, tuple(options.concurrency))
    try:
        generator.require()
        _run(options, plan)
    except (generator.GeneratorUnavailable, report.UnreadableResults, WrongAnswer) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace, plan: rounds.Plan) -> None:
    contenders = _installed(options.contenders)
    report.kept(options.folder)  # to fail before it is all measured, and not afterwards
    for name in options.workloads:
        workload = workloads.prepare(name, options.folder, options.photos)
        played = list(rounds.play(plan, workload, contenders, _tell))
        bounds = tuple(each for each in played if isinstance(each, Limits))
        cells = tuple(each for each in played if isinstance(each, Cell))
        report.keep(options.folder, name, report.Measured(plan, bounds, cells, report.this_machine()))
    measured = report.kept(options.folder)
    print(report.table(measured))
    print(f"every figure is in {options.folder}")
    if options.write:
        report.write(options.write, measured)


def _installed(names: Sequence[str]) -> list[Contender]:
    chosen = [CONTENDERS[name] for name in names]
    for contender in chosen:
        if not contender.is_installed:
            _tell(f"{contender.name} is left out: {contender.needs} is not installed")
    return [contender for contender in chosen if contender.is_installed]


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.serving", description=__doc__)
    parser.add_argument("--workloads", nargs="*", choices=workloads.NAMES, default=workloads.NAMES)
    parser.add_argument("--contenders", nargs="+", choices=tuple(CONTENDERS), default=tuple(CONTENDERS))
    parser.add_argument("--concurrency", nargs="+", type=int, default=[1, 8, 32, 64])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5, help="for each cell; whole seconds")
    parser.add_argument("--photos", type=Path, help="folder of real JPEG photographs; default: drawn ones")
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="where the page of all workloads measured so far goes"
    )
    parser.add_argument("--folder", type=Path, default=Path("reports/bench"), help="models and results")
    return parser


if __name__ == "__main__":
    sys.exit(main())
