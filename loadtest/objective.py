"""Stated objectives and whether a run held them.

::

    "p99<100ms, errors<0.1%, throughput>500/s"

    p50 p90 p95 p99 p99.9 mean max    latency, in ms or s
    errors                            share of requests without a prediction, in %
    throughput                        answered requests, /s
    images                            predictions, /s
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

from loadtest.measurement import PERCENTILES, Summary

_TERM = re.compile(
    r"^(?P<metric>[a-z][a-z0-9.]*)\s*(?P<sign><=?|>=?)\s*(?P<bound>[0-9.]+)\s*(?P<unit>ms|s|%|/s)$"
)
_LATENCIES = (*(f"p{p:g}" for p in PERCENTILES), "mean", "max")
_UNITS = {
    **dict.fromkeys(_LATENCIES, ("ms", "s")),
    "errors": ("%",),
    "throughput": ("/s",),
    "images": ("/s",),
}


class InvalidObjective(Exception):
    """A term that states no objective."""


@dataclass(frozen=True, slots=True)
class Objective:
    """One bound on one figure.

    Attributes:
        text: As it was stated.
        metric: The figure.
        is_upper: The figure must stay below the bound; else above it.
        is_strict: The bound itself is already a miss.
        bound: In ms, a share of 1, or 1/s.
    """

    text: str
    metric: str
    is_upper: bool
    is_strict: bool
    bound: float

    def holds(self, measured: float) -> bool:
        """Whether ``measured`` keeps the bound; not a number never does."""
        if measured == self.bound:
            return not self.is_strict
        return measured < self.bound if self.is_upper else measured > self.bound


@dataclass(frozen=True, slots=True)
class Judgement:
    """One objective beside what was measured."""

    objective: Objective
    measured: float

    @property
    def holds(self) -> bool:
        """Whether the objective was held."""
        return self.objective.holds(self.measured)


def parse(text: str) -> tuple[Objective, ...]:
    """The objectives in a comma-separated list; none in an empty one.

    Raises:
        InvalidObjective: A term is none; the message names it and what would be one.
    """
    return tuple(_parse_term(term.strip()) for term in text.split(",") if term.strip())


def judge(objectives: Sequence[Objective], summary: Summary) -> tuple[Judgement, ...]:
    """Each objective beside its figure."""
    return tuple(Judgement(objective, _figure(objective.metric, summary)) for objective in objectives)


def _parse_term(term: str) -> Objective:
    match = _TERM.match(term)
    if match is None or match["unit"] not in _UNITS.get(match["metric"], ()):
        raise InvalidObjective(
            f"'{term}' states no objective; write e.g. p99<100ms, errors<0.1% or throughput>500/s"
            f" (figures: {', '.join(_UNITS)})"
        )
    scale = {"ms": 1.0, "s": 1000.0, "%": 0.01, "/s": 1.0}[match["unit"]]
    sign = match["sign"]
    return Objective(term, match["metric"], sign[0] == "<", len(sign) == 1, float(match["bound"]) * scale)


def _figure(metric: str, summary: Summary) -> float:
    figures = {
        **{f"p{p:g}": ms for p, ms in summary.percentiles.items()},
        "mean": summary.mean_ms,
        "max": summary.max_ms,
        "errors": summary.errors,
        "throughput": summary.requests_per_s,
        "images": summary.images_per_s,
    }
    return figures[metric]
