"""``make bench``: our service beside others. Quiet machine, please: whatever else runs is in the figures."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path

from benchmarks.numbers import positive
from benchmarks.page import in_a_folder
from benchmarks.serving import generator, report, rounds, workloads
from benchmarks.serving.contenders import CONTENDERS, Contender
from benchmarks.serving.server import WrongAnswer
from loadtest.pictures import NoPictures


class Refused(Exception):
    """What is asked for makes no page."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints the table.

    Returns:
        0; 1 when a contender answered wrongly, the load generator is missing or the page would have gaps.
    """
    options = _parser().parse_args(arguments)
    plan = rounds.Plan(options.rounds, options.seconds, tuple(options.concurrency))
    try:
        generator.require()
        _run(options, plan)
    except (
        Refused,
        NoPictures,
        generator.GeneratorUnavailable,
        report.UnreadableResults,
        WrongAnswer,
    ) as error:
        print(f"bench: {error}", file=sys.stderr)
        return 1
    return 0


def _run(options: argparse.Namespace, plan: rounds.Plan) -> None:
    contenders = _installed(options.contenders)
    kept = report.kept(options.folder)  # to fail before it is all measured, and not afterwards
    chosen = {name: [each for each in contenders if each.takes_part_in(name)] for name in options.workloads}
    for name, taking_part in chosen.items():
        if not taking_part:
            raise Refused(f"none of these contenders takes part in {name}")
    if options.write:
        _check_page(options.write, chosen, kept)
    for name, taking_part in chosen.items():
        workload = workloads.prepare(name, options.folder, options.photos)
        measured = report.Measured(plan, (), (), report.this_machine(), workload.about)
        for played in rounds.play(plan, workload, taking_part, _tell):
            measured = measured.with_round(played)
            report.keep(options.folder, name, measured)  # a wrong answer later loses its own round alone
    measured_so_far = report.kept(options.folder)
    print(report.table(measured_so_far))
    print(f"every figure is in {options.folder}")
    if options.write:
        report.write(options.write, measured_so_far)


def _check_page(
    page: Path, chosen: Mapping[str, Sequence[Contender]], kept: Mapping[str, report.Measured]
) -> None:
    """A page with gaps does not take the place of a whole one."""
    there = {name: {cell.contender for cell in each.cells} for name, each in kept.items()}
    there |= {name: {each.name for each in taking_part} for name, taking_part in chosen.items()}
    if gaps := report.lacking(there):
        raise Refused(
            f"{page} would lack {', '.join(gaps)}: measure them too, or leave out --write (make bench PAGE=)"
        )


def _installed(names: Sequence[str]) -> list[Contender]:
    chosen = [CONTENDERS[name] for name in names]
    for contender in chosen:
        if not contender.is_installed:
            _tell(f"{contender.name} is left out: {contender.needs} is not installed")
    return [contender for contender in chosen if contender.is_installed]


def _tell(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.serving",
        description="Measure our service beside other ways to serve the same model, and beside the machine's "
        "limit. Needs wrk and a quiet machine.",
    )
    parser.add_argument(
        "--workloads",
        nargs="*",
        choices=workloads.NAMES,
        default=workloads.NAMES,
        help="what to measure now; nothing behind it: only show what is kept (default: all)",
    )
    parser.add_argument(
        "--contenders",
        nargs="+",
        choices=tuple(CONTENDERS),
        default=tuple(CONTENDERS),
        help="who is measured (default: all that are installed)",
    )
    parser.add_argument(
        "--concurrency",
        nargs="+",
        type=positive(int),
        default=[1, 8, 32, 64],
        help="requests on their way at a time (default: 1 8 32 64)",
    )
    parser.add_argument(
        "--rounds",
        type=positive(int),
        default=5,
        help="how often everybody is measured; each round is kept when it is over (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=positive(int),
        default=5,
        help="of load for each contender, concurrency and round (default: %(default)s)",
    )
    parser.add_argument("--photos", type=Path, help="folder of real JPEG photographs (default: drawn ones)")
    parser.add_argument(
        "--write",
        type=in_a_folder,
        metavar="FILE",
        help="where the page of all workloads goes, those kept from before included; refused if it would "
        "lack one of them, or a contender (default: the tables are only printed)",
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("reports/bench"),
        help="models and results (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
