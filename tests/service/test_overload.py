"""The state machine under three times its capacity, in simulated time: no thread, no clock, no waiting.

::

    Poisson arrivals ──▶ admit ──▶ decoders (first come, first served) ──▶ line ──▶ form ──▶ engine
                          │                                                                  │
                        refused at once                              answered within the deadline?

Time of a batch is a + b · n with lognormal noise, in a lane as many times that as there are lanes; every
client has a deadline of one second.
"""

from __future__ import annotations

import heapq
import math
import random
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial

import pytest

from service.batcher import CostModel
from service.batcher.cost import DecodePace, Lateness
from service.batcher.waiting import BatchQueue
from service.errors import RequestError

DEADLINE_S = 1.0
OVERLOAD_S = 20.0
CALM_S = 5.0
RECOVERY_S = 2.0


@dataclass(frozen=True)
class Machine:
    """How fast a service is: a and b of its engine, and its decoders."""

    overhead_s: float
    per_instance_s: float
    decode_s: float = 0.0
    decoders: int = 2
    noise: float = 0.2
    lanes: int = 1

    @property
    def capacity(self) -> float:
        """Instances a second at best, of the engine or of the decoders."""
        size = 64
        engine = size / (self.overhead_s + self.per_instance_s * size)
        return min(engine, self.decoders / self.decode_s) if self.decode_s else engine


@dataclass(eq=False)
class Instance:
    """One client's."""

    arrived_at: float
    deadline: float
    answer_at: float
    enqueued_at: float = math.inf
    is_abandoned: bool = False
    is_encoded: bool = False


@dataclass
class Simulation:
    """Events in order of time, and what became of everybody."""

    machine: Machine
    random: random.Random
    queue: BatchQueue[Instance] = field(init=False)
    latencies: list[tuple[float, float]] = field(default_factory=list)  # when answered, after how long
    refused_at: list[float] = field(default_factory=list)
    dropped: int = 0

    def __post_init__(self) -> None:
        cost = CostModel()
        for size in (1, 2, 4, 8, 16, 32, 64):
            cost.learn(size, self.machine.overhead_s + self.machine.per_instance_s * size)
        lanes = self.machine.lanes
        self.queue = BatchQueue(
            max_batch_size=64, max_queue_size=1024, max_queue_delay_s=0, cost=cost, lanes=lanes
        )
        self._events: list[tuple[float, int, Callable[[float], None]]] = []
        self._scheduled = 0
        self._undecoded: deque[Instance] = deque()
        self._free_decoders = self.machine.decoders

    def run(self, rates: list[tuple[float, float]]) -> None:
        """Arrivals at each rate for so many seconds, one after the other, until all is answered."""
        start = 0.0
        for rate, seconds in rates:
            moment = start
            while (moment := moment + self.random.expovariate(rate)) < start + seconds:
                self._at(moment, self._arrive)
            start += seconds
        while self._events:
            moment, _, event = heapq.heappop(self._events)
            event(moment)

    def _at(self, moment: float, event: Callable[[float], None]) -> None:
        self._scheduled += 1
        heapq.heappush(self._events, (moment, self._scheduled, event))

    def _arrive(self, now: float) -> None:
        try:
            answer_at = self.queue.admit(1, now + DEADLINE_S, now)
        except RequestError:
            self.refused_at.append(now)
            return
        self._undecoded.append(Instance(now, now + DEADLINE_S, answer_at))
        self._decode(now)

    def _decode(self, now: float) -> None:
        while self._free_decoders and self._undecoded:
            self._free_decoders -= 1
            instance = self._undecoded.popleft()
            self._at(now + self.machine.decode_s, partial(self._decoded, instance))

    def _decoded(self, instance: Instance, now: float) -> None:
        self._free_decoders += 1
        instance.enqueued_at = now
        self.queue.submit(instance)
        self._decode(now)
        self._form(now)

    def _form(self, now: float) -> None:
        for lane, running in enumerate(list(self.queue.running)):
            if running is None:
                self._start(lane, now)

    def _start(self, lane: int, now: float) -> None:
        formed = self.queue.form(now, lane)
        self.dropped += len(formed.expired)
        self.queue.settle(len(formed.expired))
        if formed.batch:
            cost_s = self._duration(len(formed.batch))
            self._at(now + cost_s / formed.share, partial(self._finish, lane, formed.batch, cost_s))

    def _duration(self, size: int) -> float:
        mean_s = self.machine.overhead_s + self.machine.per_instance_s * size
        return mean_s * self.random.lognormvariate(0, self.machine.noise)

    def _finish(self, lane: int, batch: list[Instance], cost_s: float, now: float) -> None:
        self.queue.cost.learn(len(batch), cost_s)
        self.queue.lateness.learn(now - batch[-1].answer_at)
        self.queue.settle(len(batch))
        self.latencies += [(now, now - instance.arrived_at) for instance in batch]
        self.queue.running[lane] = None
        self._form(now)


MACHINES = {
    "small network": Machine(60e-6, 45e-6),
    "ResNet-18 on two cores": Machine(1e-3, 19e-3),
    "ResNet-18 in two lanes": Machine(1e-3, 19e-3, lanes=2),
    "ResNet-18 in eight lanes": Machine(0.5e-3, 2.4e-3, lanes=8),
    "GPU": Machine(5e-3, 0.2e-3),
    "big photos, small network": Machine(60e-6, 45e-6, decode_s=0.02),
    "noisy": Machine(2e-3, 5e-3, noise=0.4),
}


def withstands(simulation: Simulation) -> bool:
    """Three times the capacity: goodput, deadlines, and calm soon after."""
    machine = simulation.machine
    seconds = min(OVERLOAD_S, 20_000 / machine.capacity)  # shorter where there are very many arrivals
    simulation.run([(3 * machine.capacity, seconds), (0.5 * machine.capacity, CALM_S)])
    steady = [latency for when, latency in simulation.latencies if seconds / 4 < when < seconds]
    goodput = sum(latency <= DEADLINE_S for latency in steady) / (seconds * 3 / 4)
    return (
        goodput >= 0.9 * machine.capacity / math.exp(machine.noise**2 / 2)
        and sorted(steady)[int(0.99 * len(steady))] <= DEADLINE_S
        and simulation.dropped <= 0.01 * len(simulation.latencies)
        and all(refused < seconds + RECOVERY_S for refused in simulation.refused_at)
    )


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_three_times_the_capacity(machine: Machine) -> None:
    assert withstands(Simulation(machine, random.Random(1)))


class BlindToDecoding(DecodePace):
    """Believes that decoding takes no time."""

    def drain_s(self, n: int) -> float:
        return 0.0


class WithoutMargin(Lateness):
    """Believes its predictions."""

    @property
    def margin_s(self) -> float:
        return 0.0


class AdmitsEverybody(BatchQueue[Instance]):
    """Looks at the number of slots only."""

    def drain_s(self, n: int, now: float) -> float:
        return 0.0


def test_the_check_notices_who_is_blind_to_decoding() -> None:
    simulation = Simulation(MACHINES["big photos, small network"], random.Random(1))
    simulation.queue.pace = BlindToDecoding()
    assert not withstands(simulation)


def test_the_check_notices_who_believes_predictions() -> None:
    simulation = Simulation(MACHINES["ResNet-18 on two cores"], random.Random(1))
    simulation.queue.lateness = WithoutMargin()
    assert not withstands(simulation)


def test_the_check_notices_who_admits_everybody() -> None:
    simulation = Simulation(MACHINES["ResNet-18 on two cores"], random.Random(1))
    simulation.queue.__class__ = AdmitsEverybody
    assert not withstands(simulation)


@pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)
def test_below_its_capacity_nobody_is_refused(machine: Machine) -> None:
    simulation = Simulation(machine, random.Random(2))
    simulation.run([(0.6 * machine.capacity, min(OVERLOAD_S, 20_000 / machine.capacity))])
    assert not simulation.refused_at
    assert not simulation.dropped
    assert all(latency <= DEADLINE_S for _, latency in simulation.latencies)
