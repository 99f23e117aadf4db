"""One configuration under load: a real process, and the curve of its throughput against its latency.

::

    start ─▶ warm up ─▶ 1, 2, 4, … clients, each for some seconds, until the objective is missed or
                        more clients bring nothing ─▶ stop
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from service.tuning.load import Generator, Load, percentile, poisson
from service.tuning.objective import Objective
from service.tuning.process import ServiceProcess, Stages

_PERCENTILES: Final = (50.0, 90.0, 95.0, 99.0, 99.9)
_WARM_UP_CLIENTS: Final = 8
_WARM_UP_SHARE: Final = 0.3
_LEAST_WARM_UP_S: Final = 0.3
_MAX_CLIENTS: Final = 256
# A step that brings less than this is none.
_LEAST_GAIN: Final = 1.02
# So many steps without a gain, and the top is reached.
_PATIENCE: Final = 2
# Shares of the closed loop's throughput at which independent clients arrive.
_RATES: Final = (0.3, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0)


@dataclass(frozen=True, slots=True)
class Cost:
    """What the service took of the machine during one load.

    Attributes:
        cores: Busy on average.
        loop: Share of the time that its event loop was busy (with several workers, of theirs on average).
        image_ms: CPU milliseconds an image.
    """

    cores: float
    loop: float
    image_ms: float


@dataclass(frozen=True, slots=True)
class Point:
    """One load on one configuration.

    Attributes:
        clients: Requests on their way at a time; None for independent arrivals.
        offered_per_s: Arrivals a second; None for a closed loop.
        images_per_s: Answers a second.
        percentiles_ms: Latency by percentile.
        excess: See `Objective.excess`.
        failures: Requests that were not answered with a prediction.
        cost: None where the system does not say.
        stages: What the service counted meanwhile.
    """

    clients: int | None
    offered_per_s: float | None
    images_per_s: float
    percentiles_ms: dict[float, float]
    excess: float
    failures: int
    cost: Cost | None
    stages: Stages

    @property
    def is_held(self) -> bool:
        """Whether the objective is held and nothing failed."""
        return self.excess < 1 and not self.failures


def best_held(points: Sequence[Point]) -> Point | None:
    """The point of the highest throughput at which the objective is held; None where it never is."""
    return max((point for point in points if point.is_held), key=lambda each: each.images_per_s, default=None)


class Prober:
    """Loads services.

    Args:
        requests: As `service.tuning.load.request_bytes` makes them.
        objective: What is to be held.
        checkpoint: Called before each load; what it raises ends the curve.
    """

    def __init__(
        self, requests: Sequence[bytes], objective: Objective, checkpoint: Callable[[], None]
    ) -> None:
        self._requests = requests
        self._objective = objective
        self._checkpoint = checkpoint
        self._percentiles = sorted({*_PERCENTILES, *objective.percentiles})

    def curve(self, service: ServiceProcess, seconds: float) -> list[Point]:
        """Closed loops of more and more clients, each for some seconds; by their number."""
        points: list[Point] = []
        with Generator(service.url, self._requests) as generator:
            self._warm_up(generator, seconds)
            clients, dull_steps, best_per_s = 1, 0, 0.0
            while clients <= _MAX_CLIENTS and dull_steps < _PATIENCE:
                points.append(self._closed(service, generator, clients, seconds))
                if not points[-1].is_held:
                    break
                dull_steps = dull_steps + 1 if points[-1].images_per_s < _LEAST_GAIN * best_per_s else 0
                best_per_s = max(best_per_s, points[-1].images_per_s)
                clients *= 2
            if clients > 2 and not points[-1].is_held:  # look once in between
                points.insert(-1, self._closed(service, generator, clients * 3 // 4, seconds))
        return points

    def arrivals(self, service: ServiceProcess, peak_per_s: float, seconds: float) -> list[Point]:
        """Independent arrivals at rising rates, each for some seconds, until the objective is missed."""
        points: list[Point] = []
        with Generator(service.url, self._requests) as generator:
            self._warm_up(generator, seconds)
            for seed, share in enumerate(_RATES):
                points.append(self._open(service, generator, share * peak_per_s, seconds, seed))
                if not points[-1].is_held:
                    break
        return points

    def _warm_up(self, generator: Generator, seconds: float) -> None:
        generator.closed(_WARM_UP_CLIENTS, max(_LEAST_WARM_UP_S, seconds * _WARM_UP_SHARE))

    def _closed(self, service: ServiceProcess, generator: Generator, clients: int, seconds: float) -> Point:
        return self._watched(service, lambda: generator.closed(clients, seconds), clients=clients)

    def _open(
        self, service: ServiceProcess, generator: Generator, rate: float, seconds: float, seed: int
    ) -> Point:
        moments = poisson(rate, seconds, seed)
        return self._watched(service, lambda: generator.open(moments), rate=rate)

    def _watched(
        self,
        service: ServiceProcess,
        drive: Callable[[], Load],
        *,
        clients: int | None = None,
        rate: float | None = None,
    ) -> Point:
        self._checkpoint()
        stages, cpu, begin = service.stages(), service.cpu_time(), time.perf_counter()
        load = drive()
        seconds, cpu_after, counted = time.perf_counter() - begin, service.cpu_time(), service.stages()
        latencies_ms = load.latencies_ms()
        cost = None
        if cpu is not None and cpu_after is not None:
            used = cpu_after.since(cpu)
            cost = Cost(
                used.total_s / seconds,
                used.loops_s / seconds / counted.workers,
                used.total_s * 1e3 / max(1, len(latencies_ms)),
            )
        return Point(
            clients=clients,
            offered_per_s=rate,
            images_per_s=load.answered_per_s,
            percentiles_ms={p: percentile(latencies_ms, p) for p in self._percentiles},
            excess=self._objective.excess(latencies_ms),
            failures=load.failures,
            cost=cost,
            stages=counted.since(stages),
        )
