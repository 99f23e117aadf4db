"""What the limit is made of: decoding, inference, and all the rest of a request.

::

    limit = cores / CPU-seconds of an image
    CPU-seconds of an image (measured under load)
        = decoding      (measured alone, with the service's own decoder)
        + inference     (measured alone, with the model file, at the batch size that the load had)
        + the rest      HTTP, JSON, batching, waiting for each other

CPU time and not time on the clock: under load, stages wait for each other's cores.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np

from service.engine import Engine, EngineOptions
from service.images import DecodeLimits, decode
from service.tuning.measuring import Point

_LEAST_S: Final = 0.5
# From here on an event loop is called the limit: it has to sleep now and then to be woken.
_BUSY_LOOP: Final = 0.9
_BUSY_CORES: Final = 0.85


@dataclass(frozen=True, slots=True)
class Anatomy:
    """CPU milliseconds of one image, by what they are spent on, and what else is known of the limit.

    Attributes:
        decode_ms: Decoding and resizing.
        inference_ms: Its share of a batch.
        rest_ms: HTTP, JSON, batching.
        batch_size: Images in a batch, on average.
        cores: Busy on average, of those that the service may use.
        cpus: Those that it may use.
        loop: Share of the time that an event loop is busy.
        on_gpu: Whether inference takes no CPU.
        has_tried_more_workers: Whether a configuration with more of them was measured: it was not chosen.
        stages_ms: Time on the clock in each stage, from the service's metrics.
    """

    decode_ms: float
    inference_ms: float
    rest_ms: float
    batch_size: float
    cores: float
    cpus: int
    loop: float
    on_gpu: bool
    has_tried_more_workers: bool
    stages_ms: dict[str, float]

    @property
    def total_ms(self) -> float:
        """CPU milliseconds of an image."""
        return self.decode_ms + self.inference_ms + self.rest_ms

    @property
    def verdict(self) -> str:
        """What limits the throughput, in a sentence or two."""
        shares = {
            "decoding": self.decode_ms,
            "inference": self.inference_ms,
            "HTTP and batching": self.rest_ms,
        }
        largest = max(shares, key=lambda name: shares[name])
        parts = ", ".join(f"{name} {value / self.total_ms:.0%}" for name, value in shares.items())
        made_of = f"An image takes {self.total_ms:.3g} CPU-ms: {parts}."
        if self.cores < _BUSY_CORES * self.cpus and self.loop > _BUSY_LOOP:
            return f"{made_of} The event loop is the limit ({self.loop:.0%} busy){self._more_workers}."
        if self.on_gpu and self.cores < _BUSY_CORES * self.cpus:
            return f"{made_of} The CPUs are not the limit ({self.cores:.1f} of {self.cpus} busy): the GPU is."
        return f"{made_of} The largest part is {largest}; {self.cores:.1f} of {self.cpus} CPUs are busy."

    @property
    def _more_workers(self) -> str:
        """What is known of those who would have a loop of their own."""
        if self.on_gpu:
            return ", and on a GPU there is one worker"
        if self.has_tried_more_workers:
            return "; more workers were tried and are not better"
        return "; more workers were not tried"


def dissect(
    point: Point,
    path: Path,
    engine_options: EngineOptions,
    images: Sequence[bytes],
    limits: DecodeLimits,
    cpus: int,
    *,
    has_tried_more_workers: bool,
) -> Anatomy | None:
    """What the limit is made of; None where the system does not say what CPU time a process took.

    Args:
        point: Of the highest load.
        path: The model file that served.
        engine_options: As the service has them.
        images: Encoded, as they were sent.
        limits: Of decoding, as the service has them.
        cpus: That the service may use.
        has_tried_more_workers: See `Anatomy`.
    """
    if point.cost is None:
        return None
    engine = Engine.load(path, engine_options)
    contract = engine.metadata.input
    decode_ms = _cpu_ms(lambda: [decode(image, contract, limits) for image in images]) / len(images)
    size = min(engine_options.max_batch_size, max(1, round(point.stages.batch_size)))
    batch = np.stack([decode(images[index % len(images)], contract, limits) for index in range(size)])
    run = engine.run_in_lane if engine.has_lanes else engine.run
    inference_ms = _cpu_ms(lambda: run(batch)) / size
    return Anatomy(
        decode_ms=decode_ms,
        inference_ms=inference_ms,
        rest_ms=max(0.0, point.cost.image_ms - decode_ms - inference_ms),
        batch_size=point.stages.batch_size,
        cores=point.cost.cores,
        cpus=cpus,
        loop=point.cost.loop,
        on_gpu=engine.active != "cpu",
        has_tried_more_workers=has_tried_more_workers,
        stages_ms=point.stages.mean_ms,
    )


def _cpu_ms(work: Callable[[], object]) -> float:
    """CPU milliseconds of all threads for one call, after one that warms."""
    work()
    begin, cpu, calls = time.perf_counter(), time.process_time(), 0
    while not calls or time.perf_counter() - begin < _LEAST_S:
        work()
        calls += 1
    return (time.process_time() - cpu) * 1e3 / calls
