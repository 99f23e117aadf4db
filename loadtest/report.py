"""A run's result as text for people and as JSON for programs."""

from __future__ import annotations

import json
import math
from bisect import bisect_right
from collections.abc import Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any, Literal, TypeAlias, TypeVar, get_args

from loadtest.measurement import MAX_LAG_MS, Health, Recording, Sample, Summary, summarise
from loadtest.objective import Judgement, Objective, judge
from loadtest.schedule import Phase, starts

# What tells the requests of a run apart.
Trait: TypeAlias = Literal["form", "model", "size"]
Key = TypeVar("Key", bound=Hashable)
_SHOWN = (50.0, 95.0, 99.0)


@dataclass(frozen=True, slots=True)
class Step:
    """One phase of an open-loop run."""

    phase: Phase
    summary: Summary
    judgements: tuple[Judgement, ...]

    @property
    def is_held(self) -> bool:
        """Whether something was answered and every objective was held."""
        return _is_held(self.summary, self.judgements)


@dataclass(frozen=True, slots=True)
class Result:
    """What a run was, what it saw, and whether it held its objectives.

    Attributes:
        title: The run in words: shape, load, address.
        total: All requests.
        by: The same by form of the body, and by model and size of the pictures where there are several.
        steps: The same by phase of the schedule; empty for a closed loop.
        is_search: Whether the phases look for the knee; then they stand in the order of their rates.
        judgements: One a stated objective. A run in steps is judged by its first one, because the last
            ones are there to be missed.
        health: Of an open-loop generator; None for a closed loop.
    """

    title: str
    total: Summary
    by: Mapping[Trait, Mapping[str, Summary]]
    steps: tuple[Step, ...]
    is_search: bool
    judgements: tuple[Judgement, ...]
    health: Health | None

    @property
    def is_held(self) -> bool:
        """Whether something was answered and every objective was held."""
        return _is_held(self.total, self.judgements)

    @property
    def is_valid(self) -> bool:
        """Whether it is the service that was measured, and not the generator."""
        return self.health is None or self.health.is_valid

    @property
    def exit_code(self) -> int:
        """0 when held, 1 when missed, 2 when the run says nothing about the service."""
        if not self.is_valid:
            return 2
        return 0 if self.is_held else 1

    @property
    def knee_per_s(self) -> float:
        """The highest arrival rate up to which every step held; 0 when the first one missed."""
        held = takewhile(lambda step: step.is_held, self.steps)
        return max((step.phase.rate_per_s for step in held), default=0.0)

    @property
    def limits(self) -> str:
        """How far the steps say something, in words."""
        words = f"held up to {self.knee_per_s:,.0f} arrivals/s"
        if self.health is not None and self.health.beyond_per_s is not None:
            return f"{words}; at {self.health.beyond_per_s:,.0f} the generator itself was late"
        is_open = self.steps[-1].is_held
        return f"{words}, and more was not tried" if is_open else words


def conclude(
    title: str,
    recording: Recording,
    objectives: Sequence[Objective],
    phases: Sequence[Phase] = (),
    *,
    in_steps: bool = False,
) -> Result:
    """The result of a run against its objectives.

    Args:
        phases: The schedule of an open-loop run.
        in_steps: The phases look for the knee: the first one is judged, and not the whole.
    """
    total = summarise(recording.samples, recording.duration_s)
    steps = _steps(recording, objectives, phases)
    return Result(
        title,
        total,
        _by_traits(recording),
        tuple(sorted(steps, key=lambda step: step.phase.rate_per_s)) if in_steps else steps,
        in_steps,
        steps[0].judgements if in_steps else judge(objectives, total),
        recording.health,
    )


def is_held(summary: Summary, objectives: Sequence[Objective]) -> bool:
    """Whether something was answered and every objective was held."""
    return _is_held(summary, judge(objectives, summary))


def as_text(result: Result) -> str:
    """The table that is printed after a run."""
    rows = [("", "requests", "images", *(f"p{p:g} ms" for p in _SHOWN), "max ms", "errors")]
    rows += [_row(name, summary) for group in result.by.values() for name, summary in group.items()]
    rows.append(_row("all", result.total))
    if len(result.steps) > 1:
        rows += [_row(f"{step.phase.rate_per_s:,.0f}/s", step.summary) for step in result.steps]
    return "\n".join((result.title, "", *_aligned(rows), "", *_figures(result), "", *_verdict(result)))


def write(result: Result, folder: Path) -> Path:
    """Writes ``result.json`` into ``folder`` and returns its path."""
    path = folder / "result.json"
    path.write_text(json.dumps(as_document(result), indent=2) + "\n", encoding="utf-8")
    return path


def as_document(result: Result) -> dict[str, Any]:
    """The result as JSON values: figures that are not a number become null."""
    return {
        "title": result.title,
        "held": result.is_held,
        "valid": result.is_valid,
        "objectives": [_judgement_document(judgement) for judgement in result.judgements],
        "all": _summary_document(result.total),
        **{
            f"by_{trait}": {name: _summary_document(summary) for name, summary in group.items()}
            for trait, group in result.by.items()
        },
        "steps": [
            {"rate_per_s": step.phase.rate_per_s, "held": step.is_held} | _summary_document(step.summary)
            for step in result.steps
        ],
        "generator": result.health
        and {"lag_p99_ms": result.health.lag_p99_ms, "waited": result.health.waited},
    }


def _is_held(summary: Summary, judgements: Iterable[Judgement]) -> bool:
    return summary.images > 0 and all(judgement.holds for judgement in judgements)


def _groups(pairs: Iterable[tuple[Key, Sample]]) -> dict[Key, list[Sample]]:
    groups: dict[Key, list[Sample]] = {}
    for key, sample in pairs:
        groups.setdefault(key, []).append(sample)
    return groups


def _by_traits(recording: Recording) -> dict[Trait, dict[str, Summary]]:
    by: dict[Trait, dict[str, Summary]] = {}
    for trait in get_args(Trait):
        groups = _groups((getattr(sample, trait), sample) for sample in recording.samples)
        if trait == "form" or len(groups) > 1:
            ordered = sorted(groups.items(), key=lambda item: (len(item[0]), item[0]))
            by[trait] = {name: summarise(group, recording.duration_s) for name, group in ordered}
    return by


def _steps(
    recording: Recording, objectives: Sequence[Objective], phases: Sequence[Phase]
) -> tuple[Step, ...]:
    begins = starts(phases)
    groups = _groups([(bisect_right(begins, sample.at_s) - 1, sample) for sample in recording.samples])
    summaries = [
        summarise(groups.get(position, []), phase.duration_s) for position, phase in enumerate(phases)
    ]
    return tuple(
        Step(phase, summary, judge(objectives, summary))
        for phase, summary in zip(phases, summaries, strict=True)
    )


def _judgement_document(judgement: Judgement) -> dict[str, Any]:
    return {
        "objective": judgement.objective.text,
        "measured": _number(judgement.measured),
        "held": judgement.holds,
    }


def _summary_document(summary: Summary) -> dict[str, Any]:
    return {
        "requests": summary.requests,
        "images": summary.images,
        "duration_s": summary.duration_s,
        "requests_per_s": summary.requests_per_s,
        "images_per_s": summary.images_per_s,
        "latency_ms": {f"p{p:g}": _number(ms) for p, ms in summary.percentiles.items()}
        | {"mean": _number(summary.mean_ms), "max": _number(summary.max_ms)},
        "errors": _number(summary.errors),
        "by_kind": dict(summary.by_kind),
        "accuracy": summary.accuracy,
        "stages_ms": dict(summary.stages_ms),
    }


def _number(value: float) -> float | None:
    return value if math.isfinite(value) else None


def _row(name: str, summary: Summary) -> tuple[str, ...]:
    return (
        name,
        f"{summary.requests:,}",
        f"{summary.images:,}",
        *(f"{summary.percentiles[p]:.2f}" for p in _SHOWN),
        f"{summary.max_ms:.2f}",
        f"{summary.errors:.2%}",
    )


def _aligned(rows: Sequence[Sequence[str]]) -> Iterable[str]:
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    for first, *rest in rows:
        cells = (cell.rjust(width) for cell, width in zip(rest, widths[1:], strict=True))
        yield "  ".join((first.ljust(widths[0]), *cells))


def _figures(result: Result) -> Iterable[str]:
    total = result.total
    yield f"throughput  {total.requests_per_s:,.0f} requests/s, {total.images_per_s:,.0f} images/s"
    if total.accuracy is not None:
        yield f"right       {total.accuracy:.2%} of the pictures whose label is known"
    if total.stages_ms:
        stages = ", ".join(f"{name} {ms:.2f}" for name, ms in total.stages_ms.items())
        yield f"stages      {stages} (median ms, from Server-Timing)"
    failures = ", ".join(f"{kind} {count:,}" for kind, count in total.by_kind.items() if kind != "ok")
    if failures:
        yield f"failures    {failures}"
    if result.health:
        lag = f"{result.health.lag_p99_ms:.2f} ms late at p99"
        yield f"generator   {lag}, {result.health.waited:,} arrivals waited for a connection"


def _verdict(result: Result) -> Iterable[str]:
    for judgement in result.judgements:
        words = f"measured {measured(judgement)}"
        yield f"{judgement.objective.text:<18}  {words:<24}  {_word(judgement.holds)}"
    if not result.total.images:
        yield "nothing was answered"
    if result.is_search:
        yield result.limits
    if not result.is_valid:
        yield f"verdict: INVALID, the generator itself was more than {MAX_LAG_MS:g} ms late"
    else:
        yield f"verdict: {_word(result.is_held)}"


def _word(held: bool) -> str:
    return "held" if held else "MISSED"


def measured(judgement: Judgement) -> str:
    """The figure that was judged, with its unit."""
    metric, value = judgement.objective.metric, judgement.measured
    if math.isnan(value):
        return "nothing"
    if metric == "errors":
        return f"{value:.3%}"
    return f"{value:,.1f}/s" if metric in ("throughput", "images") else f"{value:,.2f} ms"
