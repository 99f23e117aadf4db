"""The knee: the highest arrival rate at which the objectives hold, found step by step.

::

    first rate held ─▶ twice as much ─▶ … ─▶ missed ─▶ halfway between the two ─▶ … until a tenth apart
              └ missed ─▶ half as much ─▶ … ─▶ held ─┘

A step is a run of its own with Poisson arrivals, and begins when the last one's answers are all there. One in
which the generator itself was late counts as too much, but says nothing about the service: it is left out. If
it is the first, there is nothing to judge, and the search is over.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Final

from loadtest.measurement import Health, Recording, Summary, summarise
from loadtest.schedule import Phase

STEPS: Final = 10
_NEAR: Final = 1.1
_FEWEST: Final = 10  # arrivals; of fewer a percentile says nothing


@dataclass(frozen=True, slots=True)
class Search:
    """What was tried.

    Attributes:
        phases: In the order of their running.
        recording: All of them, as one run without pauses.
    """

    phases: tuple[Phase, ...]
    recording: Recording


def search(
    play: Callable[[Phase], Recording],
    holds: Callable[[Summary], bool],
    first_per_s: float,
    duration_s: float,
) -> Search:
    """Plays at most `STEPS` steps, each with its share of the duration.

    Args:
        play: Runs one phase.
        holds: Whether what was seen keeps the objectives.
        first_per_s: Arrivals a second of the first step.
    """
    rate, held, missed, beyond = first_per_s, 0.0, math.inf, math.inf
    played: list[tuple[Phase, Recording]] = []
    for _ in range(STEPS):
        phase = Phase(rate, duration_s / STEPS)
        recording = play(phase)
        is_late = recording.health is not None and not recording.health.is_valid
        if is_late and played:
            beyond = missed = rate
        else:
            played.append((phase, recording))
            if is_late:
                break
            if holds(summarise(recording.samples, phase.duration_s)):
                held = rate
            else:
                missed = rate
        rate = _next(held, missed)
        if missed < held * _NEAR or (not held and rate * phase.duration_s < _FEWEST):
            break
    return Search(tuple(phase for phase, _ in played), _joined(played, beyond))


def _next(held: float, missed: float) -> float:
    if not held:
        return missed / 2
    return held * 2 if math.isinf(missed) else (held + missed) / 2


def _joined(played: Sequence[tuple[Phase, Recording]], beyond: float) -> Recording:
    """One recording; each step begins where the one before was to end."""
    samples, begin = [], 0.0
    for phase, recording in played:
        samples += [replace(sample, at_s=begin + sample.at_s) for sample in recording.samples]
        begin += phase.duration_s
    healths = [recording.health for _, recording in played if recording.health is not None]
    health = Health(
        max(health.lag_p99_ms for health in healths),
        sum(health.waited for health in healths),
        None if math.isinf(beyond) else beyond,
    )
    return Recording(tuple(samples), sum(recording.duration_s for _, recording in played), health)
