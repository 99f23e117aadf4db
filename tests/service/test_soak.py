"""Nothing grows: objects, memory, threads and slots are after many requests what they were after some."""

from __future__ import annotations

import asyncio
import gc
import logging
import random
import threading
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from service.batcher import Batcher
from service.engine import EngineOptions, Provider
from service.errors import RequestError
from service.metrics import Metrics
from service.repository import Repository, RepositoryOptions
from tests.model_files import write_model
from tests.service.fakes import SHAPE, RecordingObserver, pixels_of, until

PATIENCE_S = 60.0


def run(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    logits = pixels.reshape(len(pixels), 4).astype(np.float32)
    if pixels[0, 0, 0, 0] < 13:
        raise RuntimeError("an unlucky batch")
    return logits, logits / np.float32(255)


class Crowd:
    """Clients of every kind: patient ones, hasty ones, some that leave, some with bad images."""

    def __init__(self, batcher: Batcher, seed: int) -> None:
        self.batcher = batcher
        self.random = random.Random(seed)
        self.submitted = 0

    async def request(self) -> None:
        """One request of 1–4 instances, whatever becomes of it."""
        n = self.random.randint(1, 4)
        deadline = asyncio.get_running_loop().time() + self.random.choice([0.001, 1.0, 60.0])
        try:
            with self.batcher.admit(n, deadline) as permit:
                if self.random.random() < 0.1:
                    permit.release()
                futures = [
                    self.batcher.submit(permit, pixels_of(self.random.getrandbits(32)))
                    for _ in range(permit.slots)
                ]
                self.submitted += len(futures)
                if self.random.random() < 0.1:
                    return  # the client leaves
                for future in futures:
                    await future
        except RequestError:
            return

    async def requests(self, count: int, together: int = 16) -> None:
        """So many requests, a few at a time."""
        for _ in range(count // together):
            await asyncio.gather(*(self.request() for _ in range(together)))


async def test_a_long_run_leaves_nothing_behind(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.CRITICAL)  # what is captured of the log would grow
    metrics = Metrics(version="0")
    observer = metrics.for_model("m", "1")
    batcher = Batcher(run, input_shape=SHAPE, max_queue_size=64, observer=observer)
    crowd = Crowd(batcher, seed=1)
    sizes: list[tuple[int, int]] = []
    async with asyncio.timeout(PATIENCE_S):
        await crowd.requests(1000)
        tracemalloc.start()
        for _ in range(3):
            await crowd.requests(2000)
            await until(lambda: not batcher.in_use)
            metrics.settle()  # what waits to be counted is bounded, and comes and goes
            gc.collect()
            sizes.append((tracemalloc.get_traced_memory()[0], len(gc.get_objects())))
        tracemalloc.stop()
    assert sizes[2][0] < sizes[0][0] + 50_000
    assert sizes[2][1] < sizes[0][1] + 200
    assert not batcher._handover._unanswered
    assert batcher.depth == 0
    assert repr(batcher).endswith("0 decoding, 0 waiting, 0 running, 0 of 64 slots in use>>")
    await batcher.close(1)


async def test_every_instance_is_accounted_for() -> None:
    observer = RecordingObserver()
    batcher = Batcher(run, input_shape=SHAPE, max_queue_size=64, observer=observer)
    crowd = Crowd(batcher, seed=2)
    async with asyncio.timeout(PATIENCE_S):
        await crowd.requests(2000)
        await until(lambda: not batcher.in_use)
    answered = sum(batch.size - batch.left for batch in observer.finished)
    assert answered + observer.errors.total() + observer.cancelled.total() == crowd.submitted
    assert all((observer.cancelled["queue"], observer.failed, observer.finished))
    await batcher.close(1)


async def test_repositories_come_and_go(tmp_path: Path) -> None:
    write_model(tmp_path)
    options = RepositoryOptions(
        root=tmp_path, engine=EngineOptions(provider=Provider.CPU, threads=1, max_batch_size=2)
    )
    for _ in range(20):
        repository = Repository(options, Metrics(version="0"))
        async with asyncio.timeout(PATIENCE_S):
            await repository.start()
            await repository.close(PATIENCE_S)
            # The event loop hears of a thread's end just before it ends.
            await until(lambda: not [t for t in threading.enumerate() if t.name == "engine tiny/1"])
