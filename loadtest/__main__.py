"""``python -m loadtest``: a load test against a running service, or one that is started for it.

``python -m loadtest compare A B`` puts two saved runs beside each other.
"""

from __future__ import annotations

import argparse
import math
import subprocess
import sys
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar

from loadtest import (
    bodies,
    comparison,
    knee,
    objective,
    openloop,
    page,
    pictures,
    report,
    samples,
    schedule,
    target,
)
from loadtest.measurement import Recording

N = TypeVar("N", int, float)
LOCUSTFILE = Path(__file__).with_name("locustfile.py")


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the load test that the command line describes, or compares two.

    Returns:
        0 when the objective was held (when B is not worse than A), 1 when not, 2 when nothing could be
        measured.
    """
    arguments = sys.argv[1:] if arguments is None else arguments
    if arguments[:1] == ["compare"]:
        return _compare(arguments[1:])
    options = _parser().parse_args(arguments)
    try:
        _check(options)
        with target.running(options.host, options.start):
            folder = options.reports / datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
            folder.mkdir(parents=True)
            code = _closed_loop(options, folder) if options.shape == "closed" else _open_loop(options, folder)
            print(f"reports in {folder}")
            return code
    except (objective.InvalidObjective, pictures.NoPictures, target.TargetUnavailable) as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 2


def _compare(arguments: Sequence[str]) -> int:
    parser = argparse.ArgumentParser("python -m loadtest compare", description=comparison.__doc__)
    parser.add_argument("a", type=Path, help="folder of the run to compare with")
    parser.add_argument("b", type=Path, help="folder of the run that may be better or worse")
    options = parser.parse_args(arguments)
    try:
        result = comparison.compare(options.a, options.b)
    except samples.InvalidRun as error:
        print(f"loadtest: {error}", file=sys.stderr)
        return 2
    print(comparison.as_text(result))
    return result.exit_code


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m loadtest", description=__doc__)
    parser.add_argument("--host", default="http://127.0.0.1:8000", help="address of the service")
    parser.add_argument("--start", default="", help="command that starts the service where none answers")
    parser.add_argument(
        "--shape",
        choices=("closed", *schedule.SHAPES, "knee"),
        default="closed",
        help="closed: users who wait for their answers (locust); the others: arrivals at a fixed schedule",
    )
    parser.add_argument("--users", type=_positive(int), default=8, help="simultaneous users of a closed loop")
    parser.add_argument(
        "--rate",
        type=_positive(float),
        default=200.0,
        help="arrivals a second of an open loop; where a search for the knee begins",
    )
    parser.add_argument("--duration", type=_positive(int), default=10, help="seconds")
    parser.add_argument(
        "--model", default="", help="models to ask for, a,b; default: the service's own choice"
    )
    parser.add_argument("--pictures", type=Path, help="folder of pictures; default: scikit-learn's digits")
    parser.add_argument("--objective", default="p99<100ms, errors<0.1%", help="what the run must hold")
    parser.add_argument("--reports", type=Path, default=Path("reports/loadtest"), help="folder of reports")
    return parser


def _positive(number: type[N]) -> Callable[[str], N]:
    """What reads a number above 0, for argparse."""

    def read(text: str) -> N:
        value = number(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    return read


def _check(options: argparse.Namespace) -> None:
    """A slip on the command line is told before a service is started."""
    objective.parse(options.objective)
    if options.pictures:
        pictures.load(options.pictures)


def _closed_loop(options: argparse.Namespace, folder: Path) -> int:
    # A process of its own: locust patches sockets and threads for gevent when it is imported.
    command = [sys.executable, "-m", "locust", "--locustfile", str(LOCUSTFILE)]
    command += ["--headless", "--skip-log-setup", "--host", options.host]
    command += ["--users", str(options.users), "--spawn-rate", str(options.users)]
    command += ["--run-time", f"{options.duration}s", "--stop-timeout", "10s"]
    command += ["--html", str(folder / "locust.html"), "--csv", str(folder / "locust")]
    command += ["--model", options.model, "--objective", options.objective, "--folder", str(folder)]
    if options.pictures:
        command += ["--pictures", str(options.pictures)]
    return subprocess.run(command, check=False).returncode  # noqa: S603  # our own locustfile


def _open_loop(options: argparse.Namespace, folder: Path) -> int:
    objectives = objective.parse(options.objective)
    phases, recording = _play(options, objectives)
    result = report.conclude(
        f"open loop, {options.shape}, {options.rate:g} arrivals/s, {options.duration} s, {options.host}",
        recording,
        objectives,
        phases,
        in_steps=options.shape == "knee",
    )
    print(report.as_text(result))
    report.write(result, folder)
    samples.write(recording.samples, folder)
    page.write(result, recording.samples, folder)
    return result.exit_code


def _play(
    options: argparse.Namespace, objectives: Sequence[objective.Objective]
) -> tuple[Sequence[schedule.Phase], Recording]:
    """Sends what the options ask for; the phases as they were, and what came back."""
    shown = pictures.load(options.pictures)
    if options.shape == "sizes":
        shown = pictures.in_sizes(shown, seed=0)
    sent = bodies.mixed(shown, bodies.DISTINCT, seed=0, models=options.model.split(","))

    def play(phases: Sequence[schedule.Phase]) -> Recording:
        plan = ", ".join(f"{phase.rate_per_s:,.0f}/s for {phase.duration_s:g} s" for phase in phases)
        print(f"arrivals: {plan} …", file=sys.stderr, flush=True)
        return openloop.run(options.host, schedule.arrivals(phases, seed=0), sent)

    if options.shape != "knee":
        phases = schedule.phases(options.shape, options.rate, options.duration)
        return phases, play(phases)
    found = knee.search(
        lambda phase: play([phase]),
        lambda summary: report.is_held(summary, objectives),
        options.rate,
        options.duration,
    )
    return found.phases, found.recording


if __name__ == "__main__":
    sys.exit(main())
