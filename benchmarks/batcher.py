"""What the batcher itself costs: CPU time per instance with an engine that answers at once.

::

    python -m benchmarks.batcher

Each client asks for one instance after the other, as the hot route does: admit, submit, await, rank. The
figures are the least of some repetitions, since noise only adds. Beside them: the same event loop with
bare futures, which no batcher can do without.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from typing import Any

import numpy as np
import uvloop
from numpy.typing import NDArray

from service.batcher import Batcher
from service.metrics import Metrics

SHAPE = (28, 28, 1)
CLASSES = 10
INSTANCES = 20_000
REPEATS = 5
CLIENTS = (1, 8, 32, 64)


def main() -> None:
    """Print one line for each number of clients."""
    print("clients  CPU per instance  of it bare futures  batch size")
    for clients in CLIENTS:
        batched_s, bare_s, batch_size = uvloop.run(measure(clients))
        print(f"{clients:7}  {batched_s * 1e6:13.1f} µs  {bare_s * 1e6:15.1f} µs  {batch_size:10.1f}")


async def measure(clients: int) -> tuple[float, float, float]:
    """Seconds of CPU per instance, batched and with bare futures, and the mean batch size."""
    logits = np.random.default_rng(0).random((64, CLASSES), np.float32)

    def run(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return logits[: len(pixels)], logits[: len(pixels)]

    metrics = Metrics(version="benchmark")
    observer = metrics.for_model("m", "1", [str(label) for label in range(CLASSES)])
    batcher = Batcher(run, input_shape=SHAPE, observer=observer)
    pixels = np.zeros(SHAPE, np.uint8)
    loop = asyncio.get_running_loop()

    async def batched() -> None:
        with batcher.admit(1, loop.time() + 10) as permit:
            (await batcher.submit(permit, pixels)).top(5)

    async def bare() -> None:
        future = loop.create_future()
        loop.call_soon(future.set_result, None)
        await future

    batched_s, bare_s = await least(clients, batched), await least(clients, bare)
    await batcher.close(1)
    size = metrics.batch_size.labels("m", "1")
    return batched_s, bare_s, size.sum / sum(size.counts)


async def least(clients: int, work: Callable[[], Coroutine[Any, Any, None]]) -> float:
    """Seconds of CPU for one call, the least of all repetitions."""

    async def client() -> None:
        for _ in range(INSTANCES // clients):
            await work()

    seconds: list[float] = []
    for _ in range(REPEATS):
        started = time.process_time()
        await asyncio.gather(*(client() for _ in range(clients)))
        seconds.append(time.process_time() - started)
    return min(seconds) / INSTANCES


if __name__ == "__main__":
    main()
