"""What a search leaves behind: ``settings.env``, ``report.txt``, ``result.json``, ``curve.svg``."""

from __future__ import annotations

import math
import os
import platform
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from tempfile import TemporaryFile
from typing import Final

import orjson

from service import __version__
from service.errors import FoldserveError, InvalidConfiguration
from service.tuning.anatomy import Anatomy
from service.tuning.chart import Line, draw
from service.tuning.measuring import Point, best_held
from service.tuning.objective import Objective
from service.tuning.search import Outcome, Trial
from service.tuning.subject import Subject

SETTINGS_FILE: Final = "settings.env"
_TEXT_FILE: Final = "report.txt"
_RESULT_FILE: Final = "result.json"
_CURVE_FILE: Final = "curve.svg"


def prepare(folder: Path) -> None:
    """Make the folder of the reports, before minutes are spent on what they will say.

    Raises:
        InvalidConfiguration: It cannot be made or written, or one of the files in it cannot.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with TemporaryFile(dir=folder):
            pass
        for name in (SETTINGS_FILE, _TEXT_FILE, _RESULT_FILE, _CURVE_FILE):
            if (folder / name).exists():
                (folder / name).open("ab").close()
    except OSError as error:
        raise InvalidConfiguration(
            f"--folder {folder}: the reports cannot be written there: {error.strerror}; name another folder"
        ) from error


class ReportLost(FoldserveError):
    """The reports cannot be written; says what would have been in them."""


@dataclass(frozen=True, slots=True)
class Report:
    """Everything that is said of one search.

    Attributes:
        anatomy: Of the best configuration's limit; None where it is not known.
        cpus: That the service may use.
    """

    subject: Subject
    objective: Objective
    outcome: Outcome
    anatomy: Anatomy | None
    cpus: int

    def write(self, folder: Path) -> None:
        """Write all four files; the settings only where the objective is held.

        Args:
            folder: As `prepare` has made it.

        Raises:
            ReportLost: They cannot be written any more; says what would have been in them.
        """
        try:
            (folder / _TEXT_FILE).write_text(self.text, encoding="utf-8")
            (folder / _RESULT_FILE).write_bytes(orjson.dumps(self._document(), option=orjson.OPT_INDENT_2))
            (folder / _CURVE_FILE).write_text(self._picture(), encoding="utf-8")
            if self.outcome.is_held:
                (folder / SETTINGS_FILE).write_text(self._settings(), encoding="utf-8")
        except OSError as error:
            raise ReportLost(f"{self.text}\n{folder} cannot be written any more: {error.strerror}") from error

    @property
    def title(self) -> str:
        """What was tuned for what."""
        return f"{self.subject.name} version {self.subject.version}, {self.objective}, {self.cpus} CPUs"

    @property
    def text(self) -> str:
        """For people."""
        return "\n".join([self.title, "", *self._table(), "", *self._findings(), ""])

    def _table(self) -> Iterator[str]:
        ranked = sorted(self.outcome.trials, key=lambda trial: trial.score, reverse=True)
        width = max(len(str(trial.candidate)) for trial in ranked)
        yield f"{'images/s':>9}  {'clients':>7}  {'p50 ms':>8}  {'p99 ms':>8}  {'CPU-ms':>7}  configuration"
        for trial in ranked:
            note = _note(trial, self.outcome)
            yield f"{_row(trial)}  {trial.candidate!s:{width}}{note}".rstrip()

    def _findings(self) -> Iterator[str]:
        outcome, start, best = self.outcome, self.outcome.start, self.outcome.best
        if outcome.ended_early:
            yield f"The search ended early: {outcome.ended_early}."
        for precision, why in self.subject.left_out.items():
            yield f"{precision.value} was left out: {why}."
        if (other := outcome.unconfirmed) is not None:
            yield (
                f"{other.candidate} looked better ({other.first_score:,.0f} images/s beside "
                f"{start.first_score:,.0f}), but was not confirmed: it is not written down. "
                "More --minutes would tell."
            )
        if not outcome.is_held:
            yield self._missed()
            return
        if best is not start:
            gain = f"{best.score / start.score - 1:+.0%}" if start.score else "the start does not hold it"
            yield f"Best: {best.candidate}: {best.score:,.0f} images/s ({gain}), better in every round."
        elif outcome.unconfirmed is not None or outcome.ended_early:
            yield f"What was there is kept: {best.candidate}."
        else:
            yield f"Nothing is better than what was there by more than noise: {best.candidate}."
        held = self._held_arrivals
        if held is not None:
            yield (
                f"It holds {self.objective} for independent clients who send up to "
                f"{held.offered_per_s:,.0f} images/s."
            )
        elif outcome.arrivals:
            lowest = outcome.arrivals[0].offered_per_s
            yield f"For independent clients it does not even hold {self.objective} at {lowest:,.0f} images/s."
        if self.anatomy is not None:
            yield self.anatomy.verdict
            stages = ", ".join(f"{name} {ms:.3g}" for name, ms in self.anatomy.stages_ms.items())
            yield f"Mean ms in each stage at that load: {stages}."
            yield f"Images in a batch: {self.anatomy.batch_size:.1f}."

    def _missed(self) -> str:
        times = min(trial.nearest for trial in self.outcome.trials)
        if times < 1:
            return f"No configuration is confirmed to hold {self.objective}, though one did at times."
        return f"No configuration holds {self.objective}: the nearest is {times:.2f} times above it."

    @property
    def _held_arrivals(self) -> Point | None:
        return best_held(self.outcome.arrivals)

    def _settings(self) -> str:
        best = self.outcome.best
        now = datetime.now(UTC).strftime("%Y-%m-%d")
        return "\n".join(
            [
                f"# Found by `python -m service tune` on {now}, on {self.cpus} CPUs, for {self.subject.name}",
                f"# version {self.subject.version}. It holds {self.objective}",
                f"# at up to {best.score:,.0f} images/s for clients that wait for each answer,",
                f"# {self._promise()}",
                *self._unchanged(),
                "# Serve with it: python -m service --settings FILE",
                *(f"{name}={value}" for name, value in best.candidate.variables.items()),
                "",
            ]
        )

    def _promise(self) -> str:
        held = self._held_arrivals
        if held is not None:
            return f"and up to {held.offered_per_s:,.0f} images/s for independent clients; plan with this."
        if self.outcome.arrivals:
            return (
                f"but not at {self.outcome.arrivals[0].offered_per_s:,.0f} images/s for independent clients."
            )
        return "and for independent clients it is not known: the search ended before."

    def _unchanged(self) -> Iterator[str]:
        if not self.outcome.best.candidate.settings:
            yield "# Nothing is confirmed to be better than the defaults, so there is no line below."

    def _picture(self) -> str:
        outcome, bound = self.outcome, self.objective.bounds[0]
        lines = [Line(f"best: {outcome.best.candidate}", _line(outcome.best.curves[0], bound.percentile))]
        if outcome.best is not outcome.start:
            lines.append(
                Line(f"start: {outcome.start.candidate}", _line(outcome.start.curves[0], bound.percentile))
            )
        if outcome.arrivals:
            lines.append(Line("best, independent arrivals", _line(outcome.arrivals, bound.percentile)))
        return draw(self.title, bound.percentile, bound.bound_ms, lines)

    def _document(self) -> dict[str, object]:
        outcome = self.outcome
        return {
            "foldserve": __version__,
            "model": {"name": self.subject.name, "version": self.subject.version},
            "objective": str(self.objective),
            "machine": {
                "cpus": self.cpus,
                "cores": os.cpu_count(),
                "machine": platform.machine(),
                "python": platform.python_version(),
            },
            "is_held": outcome.is_held,
            "best": outcome.best.candidate.settings,
            "unconfirmed": outcome.unconfirmed and outcome.unconfirmed.candidate.settings,
            "ended_early": outcome.ended_early,
            "left_out": {precision.value: why for precision, why in self.subject.left_out.items()},
            "trials": [_trial_document(trial) for trial in outcome.trials],
            "arrivals": [_point_document(point) for point in outcome.arrivals],
            "limit": self.anatomy
            and {**asdict(self.anatomy), "total_ms": self.anatomy.total_ms, "verdict": self.anatomy.verdict},
        }


def _row(trial: Trial) -> str:
    """Of the last curve's best point, but the throughput of all of them."""
    point = best_held(trial.curves[-1])
    if point is None:
        return f"{'missed':>9}  {'':>7}  {'':>8}  {'':>8}  {'':>7}"
    cpu_ms = f"{point.cost.image_ms:7.3f}" if point.cost else f"{'':>7}"
    p50, p99 = point.percentiles_ms[50.0], point.percentiles_ms[99.0]
    return f"{trial.score:9,.0f}  {point.clients:7}  {p50:8.2f}  {p99:8.2f}  {cpu_ms}"


def _note(trial: Trial, outcome: Outcome) -> str:
    if trial.fault:
        return f"  cannot be measured: {trial.fault}"
    if trial is outcome.best:
        return "  ◀ best" if trial is not outcome.start else "  ◀ start and best"
    return "  (start)" if trial is outcome.start else ""


def _line(points: Sequence[Point], percentile: float) -> list[tuple[float, float]]:
    return [
        (point.images_per_s, ms) for point in points if math.isfinite(ms := point.percentiles_ms[percentile])
    ]


def _trial_document(trial: Trial) -> dict[str, object]:
    return {
        "settings": trial.candidate.settings,
        "images_per_s": trial.score,
        "fault": trial.fault,
        "rounds": len(trial.rounds),
        "curves": [[_point_document(point) for point in curve] for curve in trial.curves],
    }


def _point_document(point: Point) -> dict[str, object]:
    return {
        "clients": point.clients,
        "offered_per_s": point.offered_per_s,
        "images_per_s": point.images_per_s,
        "latency_ms": {f"p{p:g}": ms for p, ms in point.percentiles_ms.items()},
        "is_held": point.is_held,
        "failures": point.failures,
        "cost": point.cost and asdict(point.cost),
        "batch_size": point.stages.batch_size,
        "stages_ms": point.stages.mean_ms,
    }
