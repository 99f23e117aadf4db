"""An engine with lanes, on real threads: wide for a lone instance, a batch on each core for many."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from service.batcher import Batcher, Lanes, Row
from service.batcher.batch import Batch, QueuedInstance
from service.batcher.handover import HandOver
from service.batcher.waiting import Formed
from service.errors import InferenceFailed, NotReady, Overloaded
from tests.service.fakes import (
    PATIENCE_S,
    SHAPE,
    FakeClock,
    GatedEngine,
    answered_in_order,
    at_rest,
    pixels_of,
    until,
)

LANES = 3
Answer = tuple[NDArray[np.float32], NDArray[np.float32]]


class Cores:
    """Answers each instance with its own pixels, and notes which runs overlapped.

    Attributes:
        gate: What holds the batches.
        ways: "wide" or "lane" of each batch, in order of their coming in.
        overlaps: Of each batch, how many wide runs and lanes were inside when it came in, itself included.
    """

    def __init__(self) -> None:
        self.gate = GatedEngine()
        self.ways: list[str] = []
        self.overlaps: list[tuple[int, int]] = []
        self._lock = threading.Lock()
        self._inside = {"wide": 0, "lane": 0}

    def wide(self, pixels: NDArray[np.uint8]) -> Answer:
        return self._run("wide", pixels)

    def lane(self, pixels: NDArray[np.uint8]) -> Answer:
        return self._run("lane", pixels)

    def _run(self, way: str, pixels: NDArray[np.uint8]) -> Answer:
        with self._lock:
            self._inside[way] += 1
            self.ways.append(way)
            self.overlaps.append((self._inside["wide"], self._inside["lane"]))
        try:
            return self.gate(pixels)
        finally:
            with self._lock:
                self._inside[way] -= 1


class Laned:
    """A batcher with lanes, and what was sent to it."""

    def __init__(self, **options: Any) -> None:
        self.cores = Cores()
        self.clock = FakeClock()
        arguments: dict[str, Any] = {
            "input_shape": SHAPE,
            "max_batch_size": 4,
            "max_queue_size": 1000,
            "clock": self.clock,
            "lanes": Lanes(LANES, self.cores.lane),
        }
        self.batcher = Batcher(self.cores.wide, **(arguments | options))
        self.futures: list[asyncio.Future[Row]] = []

    def send(self, n: int) -> None:
        """So many instances in one turn of the event loop."""
        permit = self.batcher.admit(n)
        for _ in range(n):
            self.futures.append(self.batcher.submit(permit, pixels_of(len(self.futures))))

    async def answered(self) -> None:
        """Wait until all have their rows, each its own."""
        await answered_in_order(self.futures)


@asynccontextmanager
async def laned(**options: Any) -> AsyncIterator[Laned]:
    """One that sleeps on all lanes, and ends with every thread gone."""
    made = Laned(**options)
    async with at_rest(made.batcher, made.cores.gate.open):
        yield made


async def test_a_lone_instance_has_all_cores() -> None:
    async with laned() as it:
        it.send(1)
        await it.answered()
        assert it.cores.ways == ["wide"]


async def test_many_have_a_batch_on_each_core_at_once() -> None:
    async with laned() as it:
        it.cores.gate.shut()
        it.send(2 * LANES)
        await it.cores.gate.has_begun(LANES)
        assert it.cores.ways == ["lane"] * LANES
        assert sorted(map(len, it.cores.gate.batches)) == [1, 2, 2]
        it.cores.gate.open()
        await it.answered()


async def test_who_comes_while_one_has_all_cores_finds_a_batch_on_each_afterwards() -> None:
    async with laned() as it:
        it.cores.gate.shut()
        it.send(1)
        await it.cores.gate.has_begun(1)
        it.send(LANES)
        assert it.batcher.depth == LANES
        it.cores.gate.let_out()
        await it.cores.gate.has_begun(1 + LANES)
        assert it.cores.ways == ["wide", *["lane"] * LANES]
        it.cores.gate.open()
        await it.answered()


async def test_a_core_that_is_free_takes_who_comes_while_others_run() -> None:
    async with laned() as it:
        it.cores.gate.shut()
        it.send(LANES)
        await it.cores.gate.has_begun(LANES)
        it.cores.gate.let_out(LANES - 1)
        await until(lambda: it.batcher._handover._asleep == LANES - 1)
        it.send(1)
        await it.cores.gate.has_begun(LANES + 1)
        assert it.cores.ways == ["lane"] * (LANES + 1)
        it.cores.gate.open()
        await it.answered()


@given(st.lists(st.tuples(st.integers(1, 9), st.booleans()), min_size=1, max_size=8))
@settings(deadline=None, max_examples=100, derandomize=True)
def test_everybody_is_answered_and_a_wide_batch_runs_alone(script: list[tuple[int, bool]]) -> None:
    async def play() -> None:
        async with laned() as it:
            for arrivals, pauses in script:
                it.send(arrivals)
                if pauses:
                    await asyncio.sleep(0)
            await it.answered()
            assert all(overlap == (1, 0) or overlap[0] == 0 for overlap in it.cores.overlaps)
            assert all(lanes <= LANES for _, lanes in it.cores.overlaps)
            assert all(batch == list(range(batch[0], batch[-1] + 1)) for batch in it.cores.gate.batches)
            assert sorted(it.cores.gate.ran) == list(range(len(it.futures)))
            await until(lambda: not it.batcher.in_use)

    asyncio.run(play())


async def test_under_pressure_every_lane_has_a_short_line() -> None:
    async with laned() as it:
        permit = it.batcher.admit(2 * 4 * LANES - 1)
        deadline = it.clock() + 1e6
        it.batcher.foresee(1, deadline)
        with pytest.raises(Overloaded):
            it.batcher.foresee(2, deadline)
        permit.close()


async def test_what_runs_on_all_cores_says_nothing_about_lanes() -> None:
    async with laned() as it:
        it.cores.gate.shut()
        it.send(1)
        await it.cores.gate.has_begun(1)
        it.clock.advance(6.0)
        it.cores.gate.open()
        await it.answered()
        assert it.batcher.cost.predict_s(1) == 0


async def test_a_batch_in_a_lane_costs_its_share_of_the_machine() -> None:
    async with laned() as it:
        it.cores.gate.shut()
        it.send(LANES)
        await it.cores.gate.has_begun(LANES)
        it.clock.advance(6.0)
        it.cores.gate.open()
        await it.answered()
        await until(lambda: not it.batcher.in_use)
        assert it.batcher.cost.predict_s(1) == pytest.approx(6.0 / LANES)


async def test_a_lane_that_hangs_fails_everybody() -> None:
    async with laned() as it:
        it.cores.gate.shut()
        it.send(4 * LANES + 2)
        await it.cores.gate.has_begun(LANES)
        it.cores.gate.let_out(LANES - 1)
        await it.cores.gate.has_begun(LANES + 1)
        it.clock.advance(31.0)
        it.batcher.check()
        assert not it.batcher.is_alive
        async with asyncio.timeout(PATIENCE_S):
            outcomes = await asyncio.gather(*it.futures, return_exceptions=True)
        assert sum(isinstance(outcome, InferenceFailed) for outcome in outcomes) >= 2
        with pytest.raises(NotReady):
            it.batcher.admit(1)


async def test_a_lane_that_dies_fails_everybody_and_ends_the_others() -> None:
    async with laned() as it:
        it.cores.gate.error = lambda: SystemExit("gone")
        it.cores.gate.poison = frozenset({0})
        it.cores.gate.shut()
        it.send(LANES)
        await it.cores.gate.has_begun(LANES)
        it.cores.gate.open()
        await until(lambda: not it.batcher.is_alive)
        async with asyncio.timeout(PATIENCE_S):
            outcomes = await asyncio.gather(*it.futures, return_exceptions=True)
        assert isinstance(outcomes[0], InferenceFailed)


async def test_closing_finishes_what_every_lane_has() -> None:
    async with laned() as it:
        it.cores.gate.shut()
        it.send(LANES * 2)
        await it.cores.gate.has_begun(LANES)
        closing = asyncio.create_task(it.batcher.close(PATIENCE_S))
        await asyncio.sleep(0)
        it.cores.gate.open()
        await closing
        await it.answered()


async def test_lanes_linger_for_company_and_are_woken_by_a_full_batch() -> None:
    async with laned(max_queue_delay_s=1e3) as it:
        it.cores.gate.shut()
        it.send(1)
        await asyncio.sleep(0)
        it.send(3)
        await it.cores.gate.has_begun(LANES)
        assert sorted(map(len, it.cores.gate.batches)) == [1, 1, 2]
        it.cores.gate.open()
        await it.answered()


async def test_lanes_that_linger_run_what_waits_when_they_close() -> None:
    async with laned(max_queue_delay_s=1e3) as it:
        it.send(2)
        await it.batcher.close(PATIENCE_S)
        await it.answered()


class WakesNobody(HandOver):
    """Leaves the other lanes asleep."""

    def _claimed(self, formed: Formed[QueuedInstance], now: float, lane: int) -> Batch:
        asleep, self._asleep = self._asleep, 0
        try:
            return super()._claimed(formed, now, lane)
        finally:
            self._asleep = asleep


async def test_a_handover_that_wakes_one_lane_only_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tests.service.fakes.PATIENCE_S", 0.5)
    async with laned() as it:
        it.batcher._handover.__class__ = WakesNobody
        it.cores.gate.shut()
        it.send(2 * LANES)
        with pytest.raises(TimeoutError):
            await it.cores.gate.has_begun(LANES)
