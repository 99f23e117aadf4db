"""``make bench-overload``: three times the capacity. Quiet machine, please."""

from __future__ import annotations

import argparse
import json
import os
import statistics
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks import model
from benchmarks.numbers import positive
from benchmarks.overload.trial import DEADLINE_S, FACTOR, Trial, capacity, overload
from service.errors import FoldserveError
from service.tuning import subject
from service.tuning.load import Generator, request_bytes
from service.tuning.process import running

_ROWS = {
    "capacity (closed loop), images/s": ("capacity_per_s", "{:,.0f}", ""),
    "offered, requests/s": ("offered_per_s", "{:,.0f}", ""),
    "answered within the deadline, images/s": ("goodput_per_s", "{:,.0f}", ""),
    "the same, share of the capacity": ("goodput", "{:.1%}", "≥ 90 %"),
    "p99 of the accepted, ms": ("accepted_p99_ms", "{:,.0f}", f"≤ {DEADLINE_S * 1e3:,.0f}"),
    "accepted and answered late": ("late", "{:.2%}", ""),
    "median refusal, ms": ("refusal_p50_ms", "{:.2f}", "< 5"),
    "p99 refusal, ms": ("refusal_p99_ms", "{:.1f}", ""),
    "neither answered nor refused": ("failures", "{:.3%}", ""),
    "recovery, s": ("recovery_s", "{:.2f}", "≤ 2"),
    "generator late at most, ms": ("lateness_ms", "{:.1f}", ""),
}


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints the table.

    Returns:
        0; 1 when nothing could be measured.
    """
    options = _parser().parse_args(arguments)
    cpus = sorted(os.sched_getaffinity(0))
    if len(cpus) < 2:
        print("bench-overload: needs two CPUs, one for the service and one for its clients", file=sys.stderr)
        return 1
    try:
        trials = measure(options, cpus)
    except FoldserveError as error:
        print(f"bench-overload: {error}", file=sys.stderr)
        return 1
    options.folder.mkdir(parents=True, exist_ok=True)
    document = [asdict(trial) | {"goodput": trial.goodput} for trial in trials]
    (options.folder / "result.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    text = table(trials)
    (options.folder / "table.md").write_text(text, encoding="utf-8")
    print(text)
    print(f"table and every figure in {options.folder}")
    return 0


def measure(options: argparse.Namespace, cpus: Sequence[int]) -> list[Trial]:
    """All rounds: each with a service of its own.

    Raises:
        FoldserveError: No model, or the service does not start.
    """
    found, images = model.find(options)
    flags = ["--repository", str(options.repository), "--models", found.name, *options.flags]
    own, theirs = cpus[len(cpus) // 2 :], cpus[: len(cpus) // 2]
    headers = {"X-Request-Timeout-Ms": f"{DEADLINE_S * 1e3:.0f}"}
    requests = [request_bytes("http://127.0.0.1", image, subject.MEDIA_TYPE, headers) for image in images]
    trials = []
    os.sched_setaffinity(0, own)
    for number in range(options.rounds):
        with running(flags, theirs) as service, Generator(service.url, requests) as generator:
            per_s = capacity(generator)
            trials.append(overload(generator, per_s, options.seconds, seed=10 * number))
        print(
            f"round {number + 1}/{options.rounds}: {trials[-1].goodput:.1%} of {per_s:,.0f} images/s, "
            f"median refusal {trials[-1].refusal_p50_ms:.2f} ms",
            file=sys.stderr,
            flush=True,
        )
    return trials


def table(trials: Sequence[Trial]) -> str:
    """Medians over the rounds, as Markdown."""
    lines = ["| at three times the capacity | median | lowest – highest | aim |", "| --- | --- | --- | --- |"]
    for name, (field, form, aim) in _ROWS.items():
        values = [float(getattr(trial, field)) for trial in trials]
        spread = f"{form.format(min(values))} – {form.format(max(values))}"
        lines.append(f"| {name} | {form.format(statistics.median(values))} | {spread} | {aim} |")
    return "\n".join([*lines, ""])


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.overload",
        description=f"Send {FACTOR:g} times the capacity, open loop, with a client deadline of "
        f"{DEADLINE_S:g} s: does the service stay calm, and recover? Needs two CPUs and a quiet machine.",
    )
    model.add_flags(parser)
    parser.add_argument(
        "--rounds",
        type=positive(int),
        default=3,
        help="each with a service of its own (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=positive(float, above=1),  # the first one is not counted
        default=10.0,
        help="of each overload, above 1 (default: %(default)g)",
    )
    parser.add_argument(
        "--flags", type=str.split, default=[], help='of the service, e.g. "--workers 2" (default: none)'
    )
    parser.add_argument(
        "--folder",
        type=Path,
        default=Path("reports/overload"),
        help="where table and figures go (default: %(default)s)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
