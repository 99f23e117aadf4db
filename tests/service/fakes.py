"""A clock that moves when it is told to, an engine with a gate, and an observer that remembers."""

from __future__ import annotations

import asyncio
import threading
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from service.batcher import Batcher, FinishedBatch, Row
from service.errors import Reason

# No test waits longer than this for anything; all of them wait for events, never for time to pass.
PATIENCE_S = 10.0
SHAPE = (2, 2, 1)


class FakeClock:
    """Seconds that pass when `advance` is called."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop turn until the condition holds; for what another thread brings about."""
    async with asyncio.timeout(PATIENCE_S):
        while not condition():  # noqa: ASYNC110 - a thread's state has no event
            await asyncio.sleep(0)


def pixels_of(identity: int) -> NDArray[np.uint8]:
    """An instance that carries a number: uint8 [2, 2, 1]."""
    return np.frombuffer(identity.to_bytes(4, "big"), np.uint8).reshape(SHAPE)


def identity_of(row: Row) -> int:
    """The number of the instance that a row answers."""
    return int.from_bytes(bytes(row.logits.astype(np.uint8)), "big")


async def answered_in_order(futures: Sequence[asyncio.Future[Row]]) -> None:
    """Wait until all have their rows: the first that of number 0, and so on."""
    async with asyncio.timeout(PATIENCE_S):
        rows = await asyncio.gather(*futures)
    assert [identity_of(row) for row in rows] == list(range(len(rows)))


def join_threads(batcher: Batcher) -> None:
    """Wait until the threads of a closed batcher are gone."""
    for thread in batcher._threads:
        thread.join(PATIENCE_S)
        assert not thread.is_alive()


@asynccontextmanager
async def at_rest(batcher: Batcher, let_out: Callable[[], None] = lambda: None) -> AsyncIterator[None]:
    """Wait until the batcher's threads sleep; at the end, let out what the engine holds and see them gone."""
    try:
        await until(lambda: batcher.is_idle)
        yield
    finally:
        let_out()
        await batcher.close(PATIENCE_S)
        join_threads(batcher)


class GatedEngine:
    """Answers each instance with its own pixels. While the gate is shut, every batch waits inside.

    Attributes:
        batches: The numbers of the instances of each batch, in order, from the moment it came in.
        poison: Numbers for whose batch the engine raises.
        error: What it raises then.
    """

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.poison: frozenset[int] = frozenset()
        self.error: Callable[[], BaseException] = lambda: RuntimeError("poisoned")
        self._loop = asyncio.get_running_loop()
        self._came_in = asyncio.Event()
        self._gate = threading.Semaphore(0)
        self._is_open = True

    def __call__(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """On the engine thread."""
        values = pixels.reshape(len(pixels), 4).copy()
        members = [int.from_bytes(bytes(row), "big") for row in values]
        self.batches.append(members)
        self._loop.call_soon_threadsafe(self._came_in.set)
        if not self._is_open:
            self._gate.acquire()
        if not self.poison.isdisjoint(members):
            raise self.error()
        logits = values.astype(np.float32)
        return logits, logits / np.float32(255)

    def shut(self) -> None:
        """Hold every batch from now on."""
        self._is_open = False

    def let_out(self, batches: int = 1) -> None:
        """Let so many of the held batches finish, those to come included."""
        self._gate.release(batches)

    def open(self) -> None:
        """Let everything out."""
        self._is_open = True
        self._gate.release(10_000)

    async def has_begun(self, batches: int) -> None:
        """Wait until so many batches have come in since the beginning."""
        async with asyncio.timeout(PATIENCE_S):
            while len(self.batches) < batches:
                self._came_in.clear()
                if len(self.batches) < batches:
                    await self._came_in.wait()

    @property
    def ran(self) -> list[int]:
        """Every instance that cost inference, in order."""
        return [identity for batch in self.batches for identity in batch]


class RecordingObserver:
    """Counts what the batcher reports."""

    def __init__(self) -> None:
        self.finished: list[FinishedBatch] = []
        self.failed: list[int] = []
        self.cancelled: Counter[str] = Counter()
        self.errors: Counter[Reason] = Counter()

    def batch_finished(self, batch: FinishedBatch) -> None:
        """A batch was answered."""
        self.finished.append(batch)

    def batch_failed(self, size: int) -> None:
        """A batch failed."""
        self.failed.append(size)

    def instances_cancelled(self, stage: Literal["queue", "decode", "inference"], n: int) -> None:
        """Clients left."""
        self.cancelled[stage] += n

    def instances_failed(self, reason: Reason, n: int) -> None:
        """Errors instead of rows."""
        self.errors[reason] += n
