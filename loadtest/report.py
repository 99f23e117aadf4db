"""A run's result as text for people and as JSON for programs."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby
from operator import attrgetter
from pathlib import Path
from typing import Any

from loadtest.measurement import Sample, Summary, summarise
from loadtest.objective import Judgement, Objective, judge

_SHOWN = (50.0, 95.0, 99.0)


@dataclass(frozen=True, slots=True)
class Result:
    """What a run was, what it saw, and whether it held its objectives.

    Attributes:
        title: The run in words: shape, load, address.
        duration_s: From the first to the last moment of sending.
        total: All requests.
        by_form: The same by form of the body.
        judgements: One a stated objective.
    """

    title: str
    duration_s: float
    total: Summary
    by_form: dict[str, Summary]
    judgements: tuple[Judgement, ...]

    @property
    def is_held(self) -> bool:
        """Whether something was answered and every objective was held."""
        return self.total.images > 0 and all(judgement.holds for judgement in self.judgements)

    @property
    def exit_code(self) -> int:
        """0 when held, else 1."""
        return 0 if self.is_held else 1


def conclude(
    title: str, samples: Sequence[Sample], duration_s: float, objectives: Sequence[Objective]
) -> Result:
    """The result of a run's samples against its objectives."""
    total = summarise(samples, duration_s)
    ordered = sorted(samples, key=attrgetter("form"))
    by_form = {
        form: summarise(tuple(group), duration_s) for form, group in groupby(ordered, attrgetter("form"))
    }
    return Result(title, duration_s, total, by_form, judge(objectives, total))


def as_text(result: Result) -> str:
    """The table that is printed after a run."""
    rows = [("", "requests", "images", *(f"p{p:g} ms" for p in _SHOWN), "max ms", "errors")]
    rows += [_row(form, summary) for form, summary in result.by_form.items()]
    rows.append(_row("all", result.total))
    return "\n".join((result.title, "", *_aligned(rows), "", *_figures(result.total), "", *_verdict(result)))


def write(result: Result, folder: Path) -> Path:
    """Writes ``result.json`` into ``folder`` and returns its path."""
    path = folder / "result.json"
    path.write_text(json.dumps(as_document(result), indent=2) + "\n", encoding="utf-8")
    return path


def as_document(result: Result) -> dict[str, Any]:
    """The result as JSON values: figures that are not a number become null."""
    return {
        "title": result.title,
        "duration_s": result.duration_s,
        "held": result.is_held,
        "objectives": [
            {"objective": j.objective.text, "measured": _number(j.measured), "held": j.holds}
            for j in result.judgements
        ],
        "all": _summary_document(result.total),
        "by_form": {form: _summary_document(summary) for form, summary in result.by_form.items()},
    }


def _summary_document(summary: Summary) -> dict[str, Any]:
    return {
        "requests": summary.requests,
        "images": summary.images,
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


def _figures(summary: Summary) -> Iterable[str]:
    yield f"throughput  {summary.requests_per_s:,.0f} requests/s, {summary.images_per_s:,.0f} images/s"
    if summary.accuracy is not None:
        yield f"right       {summary.accuracy:.2%} of the pictures whose label is known"
    if summary.stages_ms:
        stages = ", ".join(f"{name} {ms:.2f}" for name, ms in summary.stages_ms.items())
        yield f"stages      {stages} (median ms, from Server-Timing)"
    failures = ", ".join(f"{kind} {count:,}" for kind, count in summary.by_kind.items() if kind != "ok")
    if failures:
        yield f"failures    {failures}"


def _verdict(result: Result) -> Iterable[str]:
    for judgement in result.judgements:
        measured = f"measured {_measured(judgement)}"
        yield f"{judgement.objective.text:<18}  {measured:<24}  {'held' if judgement.holds else 'MISSED'}"
    if not result.total.images:
        yield "nothing was answered"
    yield f"verdict: {'held' if result.is_held else 'MISSED'}"


def _measured(judgement: Judgement) -> str:
    metric, value = judgement.objective.metric, judgement.measured
    if metric == "errors":
        return f"{value:.3%}"
    return f"{value:,.1f}/s" if metric in ("throughput", "images") else f"{value:,.2f} ms"
