"""One overload: its schedule, and what became of every request."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.tuning.load import Generator, Load, percentile, poisson

OK: Final = 200
REFUSED: Final = 503
FACTOR: Final = 3.0
DEADLINE_S: Final = 1.0
_CALM_FACTOR: Final = 0.5
_CALM_S: Final = 3.0
# What it takes to fill the queue: throughput of the first moments is no steady state.
_FILLING_S: Final = 1.0
_CAPACITY_CLIENTS: Final = (16, 32, 64, 128)
_CAPACITY_S: Final = 2.0


@dataclass(frozen=True, slots=True)
class Trial:
    """One overload in figures. Shares are of the requests that arrived in the overload.

    Attributes:
        capacity_per_s: Answers a second in the best closed loop before.
        offered_per_s: Arrivals a second.
        goodput_per_s: Answers within the deadline, a second.
        accepted_p99_ms: Latency of the answered.
        late: Answered with a prediction after the deadline, share of the answered.
        refusal_p50_ms: Until a refusal.
        refusal_p99_ms: The same.
        failures: Neither a prediction nor a refusal (a broken connection, 504, …), share of all.
        recovery_s: From the end of the overload to the last refusal or late answer; 0 where there is none.
        lateness_ms: The most that the generator lagged behind its own schedule.
    """

    capacity_per_s: float
    offered_per_s: float
    goodput_per_s: float
    accepted_p99_ms: float
    late: float
    refusal_p50_ms: float
    refusal_p99_ms: float
    failures: float
    recovery_s: float
    lateness_ms: float

    @property
    def goodput(self) -> float:
        """Goodput as a share of the capacity."""
        return self.goodput_per_s / self.capacity_per_s


def capacity(generator: Generator) -> float:
    """Answers a second in the best of some closed loops."""
    generator.closed(_CAPACITY_CLIENTS[-1], _CAPACITY_S)
    return max(generator.closed(clients, _CAPACITY_S).answered_per_s for clients in _CAPACITY_CLIENTS)


def overload(generator: Generator, capacity_per_s: float, seconds: float, seed: int) -> Trial:
    """Calm, three times the capacity, calm again.

    Args:
        generator: On CPUs of its own; its requests state the deadline.
        capacity_per_s: As `capacity` measured it.
        seconds: Of the overload.
        seed: Of the arrivals.
    """
    rates = ((_CALM_FACTOR, _CALM_S), (FACTOR, seconds), (_CALM_FACTOR, _CALM_S))
    moments: list[float] = []
    begin = 0.0
    for number, (factor, length) in enumerate(rates):
        moments += [begin + m for m in poisson(factor * capacity_per_s, length, seed + number)]
        begin += length
    load = generator.open(moments, has_own_core=True)
    return judge(load, capacity_per_s, (_CALM_S, _CALM_S + seconds))


def judge(load: Load, capacity_per_s: float, overloaded: tuple[float, float]) -> Trial:
    """The figures of a run whose overload lasted from one moment to the other, in seconds from its start."""
    begin, end = overloaded
    ends = list(zip(load.moments, load.latencies_s, load.statuses, strict=True))
    inside = [(latency, status) for moment, latency, status in ends if begin <= moment < end]
    accepted = sorted(latency for latency, status in inside if status == OK)
    refused = sorted(latency for latency, status in inside if status == REFUSED)
    good = sum(
        begin + _FILLING_S <= moment + latency < end and latency <= DEADLINE_S
        for moment, latency, status in ends
        if status == OK
    )
    return Trial(
        capacity_per_s=capacity_per_s,
        offered_per_s=len(inside) / (end - begin),
        goodput_per_s=good / (end - begin - _FILLING_S),
        accepted_p99_ms=percentile(accepted, 99) * 1e3,
        late=sum(latency > DEADLINE_S for latency in accepted) / max(1, len(accepted)),
        refusal_p50_ms=percentile(refused, 50) * 1e3,
        refusal_p99_ms=percentile(refused, 99) * 1e3,
        failures=1 - (len(accepted) + len(refused)) / max(1, len(inside)),
        recovery_s=_recovery_s(ends, end),
        lateness_ms=load.lateness_s * 1e3,
    )


def _recovery_s(ends: Sequence[tuple[float, float, int]], end: float) -> float:
    """Seconds after the overload until the last one who arrived then and was not served in time."""
    troubled = (
        moment - end
        for moment, latency, status in ends
        if moment >= end and (status != OK or latency > DEADLINE_S)
    )
    return max(troubled, default=0.0)
