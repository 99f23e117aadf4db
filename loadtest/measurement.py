"""What a run saw: one sample a request, and the figures made of them.

Percentiles are exact: they are taken from all samples, not from buckets.
"""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

from loadtest.answers import OK, Outcome
from loadtest.bodies import Body

PERCENTILES = (50.0, 90.0, 95.0, 99.0, 99.9)
MAX_LAG_MS = 10.0  # a generator that lags more measures itself
_STAGE = re.compile(r"(?P<name>[a-z_]+);dur=(?P<ms>[0-9.]+)")


@dataclass(frozen=True, slots=True)
class Sample:
    """One request.

    Attributes:
        at_s: When its latency began to count, in seconds from the run's start.
        latency_s: Until the whole answer was there.
        form: Of its body.
        images: Pictures it carried.
        kind: How it ended, as in `loadtest.answers.Outcome`.
        right: Predictions that name the picture's known label.
        known: Pictures whose label is known.
        stages_ms: What ``Server-Timing`` said.
        model: That was asked for; empty: the service's own choice.
        size: Of its pictures, in words; empty where the run does not tell sizes apart.
    """

    at_s: float
    latency_s: float
    form: str
    images: int
    kind: str
    right: int
    known: int
    stages_ms: Mapping[str, float]
    model: str = ""
    size: str = ""

    @classmethod
    def of(
        cls, body: Body, outcome: Outcome, at_s: float, latency_s: float, stages_ms: Mapping[str, float]
    ) -> Self:
        """A body that was sent, and how it ended."""
        return cls(
            at_s=at_s,
            latency_s=latency_s,
            form=body.form,
            images=len(body.labels),
            kind=outcome.kind,
            right=outcome.right,
            known=outcome.known,
            stages_ms=stages_ms,
            model=body.model,
            size=body.size,
        )


@dataclass(frozen=True, slots=True)
class Summary:
    """The figures of a set of samples. Latencies in milliseconds, of answered requests only.

    Attributes:
        percentiles: Latency by percentile; NaN where nothing was answered.
        errors: Share of requests without a right-shaped prediction, 0…1.
        by_kind: Requests by how they ended.
        accuracy: Share of right predictions among pictures with a known label; None without such.
        stages_ms: Median of each stage of ``Server-Timing``.
    """

    requests: int
    images: int
    duration_s: float
    percentiles: Mapping[float, float]
    mean_ms: float
    max_ms: float
    errors: float
    by_kind: Mapping[str, int]
    accuracy: float | None
    stages_ms: Mapping[str, float]

    @property
    def requests_per_s(self) -> float:
        """Answered requests a second."""
        return self.by_kind.get(OK, 0) / self.duration_s

    @property
    def images_per_s(self) -> float:
        """Pictures with a prediction a second."""
        return self.images / self.duration_s


def summarise(samples: Sequence[Sample], duration_s: float) -> Summary:
    """The figures of ``samples``, gathered in ``duration_s`` > 0."""
    answered = [sample for sample in samples if sample.kind == OK]
    latencies = sorted(sample.latency_s * 1000 for sample in answered)
    known = sum(sample.known for sample in answered)
    return Summary(
        requests=len(samples),
        images=sum(sample.images for sample in answered),
        duration_s=duration_s,
        percentiles={p: percentile(latencies, p) for p in PERCENTILES},
        mean_ms=sum(latencies) / len(latencies) if latencies else math.nan,
        max_ms=latencies[-1] if latencies else math.nan,
        errors=1 - len(answered) / len(samples) if samples else math.nan,
        by_kind=dict(Counter(sample.kind for sample in samples).most_common()),
        accuracy=sum(sample.right for sample in answered) / known if known else None,
        stages_ms=_medians(sample.stages_ms for sample in answered),
    )


@dataclass(frozen=True, slots=True)
class Health:
    """How well an open-loop generator kept its own schedule.

    Attributes:
        lag_p99_ms: How late due arrivals were picked up.
        waited: Arrivals that found all connections taken.
        beyond_per_s: The lowest rate at which it was late itself, where a search for the knee met one. What
            it saw then is not counted.
    """

    lag_p99_ms: float
    waited: int
    beyond_per_s: float | None = None

    @property
    def is_valid(self) -> bool:
        """Whether the latencies are the service's and not the generator's."""
        return self.lag_p99_ms <= MAX_LAG_MS


@dataclass(frozen=True, slots=True)
class Recording:
    """What a run saw.

    Attributes:
        samples: In the order of their answers.
        duration_s: From the first moment of sending to the last answer.
        health: Of an open-loop generator; None for a closed loop, which has no schedule to keep.
    """

    samples: tuple[Sample, ...]
    duration_s: float
    health: Health | None = None


def percentile(ordered: Sequence[float], p: float) -> float:
    """The smallest value that at least ``p`` percent of ``ordered`` do not exceed (nearest rank).

    Args:
        ordered: Ascending.
        p: 0 < p ≤ 100.

    Returns:
        NaN for an empty sequence.
    """
    if not ordered:
        return math.nan
    return ordered[max(0, math.ceil(len(ordered) * p / 100) - 1)]


def parse_server_timing(header: str) -> dict[str, float]:
    """Milliseconds by stage in a ``Server-Timing`` header.

    Source: W3C Server Timing, section 3.1.
    """
    return {match["name"]: float(match["ms"]) for match in _STAGE.finditer(header)}


def _medians(stages: Iterable[Mapping[str, float]]) -> dict[str, float]:
    values: dict[str, list[float]] = {}
    for sample in stages:
        for name, ms in sample.items():
            values.setdefault(name, []).append(ms)
    return {name: percentile(sorted(ms), 50) for name, ms in values.items()}
