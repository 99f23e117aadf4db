"""What the machine could do if nothing but decoding and inference cost anything.

::

    limit = cores / (decoding + inference)      both in core-seconds an image

Decoding: on one core, by Pillow, as most servers do, and by our own decoder, which reads a JPEG no finer than
it is needed; a service may beat the limit with the slower one. Inference: the best way, in core-seconds of
all cores: batches of one size, one after the other on all cores, or one on each core. The machine's speed
changes with the hour, so the limits are measured in every round, like the contenders; and which way is the
best is decided by the medians, since the highest of several noisy figures is too high.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.classifier import Classifier
from benchmarks.serving.workloads import Workload
from service.engine import Engine, EngineOptions, Provider
from service.images import decode

PILLOW = "Pillow"
OWN = "our decoder"
BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)  # of one batch on all cores
LANE_BATCH_SIZES = (1, 2, 4, 8)  # of a batch on each core
LEAST_S = 0.5  # how long each figure is measured


@dataclass(frozen=True, slots=True)
class Limits:
    """Images a second.

    Attributes:
        decode_per_s: On one core, by decoder.
        infer_per_s: On all cores, by way.
    """

    cores: int
    decode_per_s: dict[str, float]
    infer_per_s: dict[str, float]

    def images_per_s(self, decoder: str, way: str) -> float:
        """The limit of both together on all cores, with one decoder and inference in one way."""
        core_s = 1 / self.decode_per_s[decoder] + self.cores / self.infer_per_s[way]
        return self.cores / core_s


def best_way(measured: Sequence[Limits]) -> str:
    """The way of inference that is the fastest of all rounds together."""
    medians = {
        way: statistics.median(limits.infer_per_s[way] for limits in measured)
        for way in measured[0].infer_per_s
    }
    return max(medians, key=medians.__getitem__)


def by_decoder(measured: Sequence[Limits]) -> dict[str, list[float]]:
    """Images a second, round by round, for each decoder, with the best way of inference."""
    way = best_way(measured)
    return {
        decoder: [limits.images_per_s(decoder, way) for limits in measured]
        for decoder in measured[0].decode_per_s
    }


def highest(measured: Sequence[Limits]) -> list[float]:
    """Images a second, round by round, with whichever decoder is the faster one in it."""
    return [max(rates) for rates in zip(*by_decoder(measured).values(), strict=True)]


def measure(workload: Workload) -> Limits:
    """The limits of this machine for one workload."""
    cores = os.cpu_count() or 1
    wide, narrow = Classifier(workload.model), Classifier(workload.model, threads=1)
    contents = [picture.data for picture in workload.pictures]
    pixels = [wide.decode(content) for content in contents]
    infer_per_s = {f"{size} on all cores": _infer_per_s(wide, pixels, size, 1) for size in BATCH_SIZES}
    infer_per_s |= {
        f"{size} on each core": _infer_per_s(narrow, pixels, size, cores) for size in LANE_BATCH_SIZES
    }
    contract = Engine.load(workload.model, EngineOptions(provider=Provider.CPU, threads=1)).metadata.input
    decode_per_s = {
        PILLOW: _decode_per_s(wide.decode, contents),
        OWN: _decode_per_s(lambda content: decode(content, contract), contents),
    }
    return Limits(cores, decode_per_s, infer_per_s)


def _decode_per_s(read: Callable[[bytes], object], contents: Sequence[bytes]) -> float:
    """Images a second on one core."""
    return len(contents) * _rate(lambda: [read(content) for content in contents])


def _infer_per_s(
    classifier: Classifier, pixels: Sequence[NDArray[np.uint8]], size: int, threads: int
) -> float:
    """Images a second of so many threads that infer at once."""
    batch = np.stack([pixels[position % len(pixels)] for position in range(size)])
    with ThreadPoolExecutor(threads) as pool:
        rates = list(pool.map(lambda _: _rate(lambda: classifier.infer(batch)), range(threads)))
    return size * sum(rates)


def _rate(work: Callable[[], object]) -> float:
    """Calls a second, after one that warms."""
    work()
    begin, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begin) < LEAST_S:
        work()
        calls += 1
    return calls / elapsed
