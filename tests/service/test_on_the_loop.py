"""A lone instance of a quick model, run on the event loop where somebody watches over it."""

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

from service.batcher import Batcher, CostModel, Lanes, Row
from service.errors import EngineLost, InferenceFailed, NotReady
from tests.service.fakes import (
    PATIENCE_S,
    SHAPE,
    RecordingObserver,
    answered_in_order,
    at_rest,
    identity_of,
    pixels_of,
    until,
)

LOOP, ENGINE = "loop", "engine"


class Engine:
    """Answers each instance with its own pixels.

    Attributes:
        where: The thread of each batch, "loop" or "engine".
        error: What the next batch raises.
    """

    def __init__(self) -> None:
        self.where: list[str] = []
        self.error: BaseException | None = None

    def __call__(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        self.where.append(LOOP if threading.current_thread() is threading.main_thread() else ENGINE)
        if self.error is not None:
            error, self.error = self.error, None
            raise error
        logits = pixels.reshape(len(pixels), 4).astype(np.float32)
        return logits, logits / np.float32(255)


def costing(seconds: float) -> CostModel:
    """A batch takes so long, whatever its size."""
    cost = CostModel()
    for size in (1, 4) * 10:
        cost.learn(size, seconds)
    return cost


class Watched:
    """A batcher of a quick model in a process that is watched over, and what was sent to it."""

    def __init__(self, **options: Any) -> None:
        self.engine = Engine()
        self.observer = RecordingObserver()
        self.futures: list[asyncio.Future[Row]] = []
        arguments: dict[str, Any] = {
            "input_shape": SHAPE,
            "max_batch_size": 4,
            "is_watched": True,
            "cost": costing(20e-6),
            "observer": self.observer,
        }
        self.batcher = Batcher(self.engine, **(arguments | options))

    def send(self, n: int = 1) -> list[asyncio.Future[Row]]:
        """So many instances in one turn of the event loop."""
        permit = self.batcher.admit(n)
        sent = [self.batcher.submit(permit, pixels_of(len(self.futures) + each)) for each in range(n)]
        self.futures += sent
        return sent

    async def answered(self) -> None:
        """Wait until all have their rows, each its own."""
        await answered_in_order(self.futures)


@asynccontextmanager
async def watched(**options: Any) -> AsyncIterator[Watched]:
    """One whose thread sleeps, and ends with it gone."""
    made = Watched(**options)
    async with at_rest(made.batcher):
        yield made


async def test_a_lone_instance_runs_on_the_loop() -> None:
    async with watched() as it:
        for _ in range(3):
            it.send()
            await it.answered()
        assert it.engine.where == [LOOP] * 3
        assert len(it.observer.finished) == 3
        assert it.batcher.in_use == 0


async def test_those_who_come_together_run_on_the_thread() -> None:
    async with watched() as it:
        it.send(3)
        await it.answered()
        assert it.engine.where == [ENGINE]


@pytest.mark.parametrize(
    "options",
    [
        {"is_watched": False},
        {"cost": costing(1e-3)},
        {"cost": CostModel()},
        {"max_queue_delay_s": 1e-6},
        {"lanes": Lanes(2, Engine())},
    ],
    ids=["nobody watches", "it is slow", "its cost is not known", "it is to linger", "it has lanes"],
)
async def test_on_the_thread_it_runs_where(options: dict[str, Any]) -> None:
    async with watched(**options) as it:
        it.send()
        await it.answered()
        assert it.engine.where == [ENGINE]


@given(st.lists(st.tuples(st.integers(1, 6), st.integers(0, 3)), min_size=1, max_size=12))
@settings(deadline=None, max_examples=150, derandomize=True)
def test_everybody_is_answered_wherever_he_runs(script: list[tuple[int, int]]) -> None:
    async def play() -> None:
        async with watched() as it:
            for arrivals, turns in script:
                it.send(arrivals)
                for _ in range(turns):
                    await asyncio.sleep(0)
            await it.answered()
            await until(lambda: not it.batcher.in_use)
            assert sum(batch.size for batch in it.observer.finished) == len(it.futures)

    asyncio.run(play())


async def test_a_failure_is_that_of_its_instance() -> None:
    async with watched() as it:
        it.engine.error = RuntimeError("bad")
        (failing,) = it.send()
        with pytest.raises(InferenceFailed):
            await failing
        (fine,) = it.send()
        assert identity_of(await fine) == 1
        assert it.engine.where == [LOOP, LOOP]
        assert it.batcher.is_ready


@pytest.mark.parametrize("error", [EngineLost("the device is gone"), SystemExit("gone")], ids=repr)
async def test_an_engine_that_is_lost_fails_everybody(error: BaseException) -> None:
    async with watched() as it:
        it.engine.error = error
        (lost,) = it.send()
        with pytest.raises(InferenceFailed):
            await lost
        assert it.engine.where == [LOOP]
        assert not it.batcher.is_alive
        with pytest.raises(NotReady):
            it.batcher.admit(1)


async def test_who_left_within_the_turn_is_not_run() -> None:
    async with watched() as it:
        (gone,) = it.send()
        gone.cancel()
        await until(lambda: not it.batcher.in_use)
        it.send()
        (answer,) = it.futures[1:]
        assert identity_of(await answer) == 1
        assert it.engine.where == [LOOP]
        assert it.observer.cancelled["queue"] == 1


async def test_closing_finds_nobody_behind() -> None:
    async with watched() as it:
        it.send()
        await it.batcher.close(PATIENCE_S)
        await it.answered()
