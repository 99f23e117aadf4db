"""When requests arrive: fixed before the run, so that a slow service cannot slow its own load down.

::

    steady   ████████        one rate
    soak     ████████        one rate, kept for long
    sizes    ████████        one rate, of pictures from 32 to 2,048 pixels a side
    spike    ▂▂▂█▂▂▂         four times the rate for a tenth of the time, then recovery
    knee     ▁▂▄█▆▅▆▅        steps around the highest rate that holds: `loadtest.knee` goes and looks for it

Within a phase arrivals are a Poisson process, because independent clients do not queue up to send.
"""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate
from typing import Literal, get_args

# Known beforehand; a knee is found step by step.
Shape = Literal["steady", "soak", "sizes", "spike"]
SHAPES: tuple[Shape, ...] = get_args(Shape)
SPIKE_FACTOR = 4


@dataclass(frozen=True, slots=True)
class Phase:
    """A stretch of time with one arrival rate."""

    rate_per_s: float
    duration_s: float


def phases(shape: Shape, rate_per_s: float, duration_s: float) -> tuple[Phase, ...]:
    """The phases of a shape whose (calm) rate and whole length are given."""
    if shape == "spike":
        calm = Phase(rate_per_s, duration_s * 0.45)
        return (calm, Phase(rate_per_s * SPIKE_FACTOR, duration_s * 0.1), calm)
    return (Phase(rate_per_s, duration_s),)


def starts(phases: Sequence[Phase]) -> list[float]:
    """The moment at which each phase begins, in seconds from the start."""
    return list(accumulate((phase.duration_s for phase in phases[:-1]), initial=0.0))


def arrivals(phases: Sequence[Phase], seed: int) -> list[float]:
    """Moments of arrival in seconds from the start, ascending; the same ones for the same seed."""
    rng = random.Random(seed)
    return [
        moment
        for phase, begin in zip(phases, starts(phases), strict=True)
        for moment in _poisson(rng, phase, begin)
    ]


def _poisson(rng: random.Random, phase: Phase, begin: float) -> Iterator[float]:
    moment = begin + rng.expovariate(phase.rate_per_s)
    while moment < begin + phase.duration_s:
        yield moment
        moment += rng.expovariate(phase.rate_per_s)
