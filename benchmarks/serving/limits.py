"""What the machine could do if nothing but decoding and inference cost anything.

::

    limit = cores / (decoding + inference)      both in core-seconds an image

Decoding: Pillow on one core. Inference: the best batch size, times the cores it used. The machine's speed
changes with the hour, so the limits are measured in every round, like the contenders; and which batch size
is the best is decided by the medians, since the highest of several noisy figures is too high.
"""

from __future__ import annotations

import os
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.classifier import Classifier
from benchmarks.serving.workloads import Workload

BATCH_SIZES = (1, 2, 4, 8, 16, 32, 64)
LEAST_S = 0.5  # how long each figure is measured


@dataclass(frozen=True, slots=True)
class Limits:
    """Images a second.

    Attributes:
        decode_per_s: On one core.
        infer_per_s: On all cores, by batch size.
    """

    cores: int
    decode_per_s: float
    infer_per_s: dict[int, float]

    def images_per_s(self, batch_size: int) -> float:
        """The limit of both together on all cores, with batches of one size."""
        core_s = 1 / self.decode_per_s + self.cores / self.infer_per_s[batch_size]
        return self.cores / core_s


def by_round(measured: Sequence[Limits]) -> list[float]:
    """Images a second, round by round, with the batch size that is the best of all rounds together."""
    medians = {
        size: statistics.median(limits.infer_per_s[size] for limits in measured)
        for size in measured[0].infer_per_s
    }
    best = max(medians, key=medians.__getitem__)
    return [limits.images_per_s(best) for limits in measured]


def measure(workload: Workload) -> Limits:
    """The limits of this machine for one workload."""
    classifier = Classifier(workload.model)
    contents = [picture.data for picture in workload.pictures]
    pixels = [classifier.decode(content) for content in contents]
    infer_per_s = {size: _infer_per_s(classifier, pixels, size) for size in BATCH_SIZES}
    decode_per_s = len(contents) * _rate(lambda: [classifier.decode(content) for content in contents])
    return Limits(os.cpu_count() or 1, decode_per_s, infer_per_s)


def _infer_per_s(classifier: Classifier, pixels: Sequence[NDArray[np.uint8]], size: int) -> float:
    batch = np.stack([pixels[position % len(pixels)] for position in range(size)])
    return size * _rate(lambda: classifier.infer(batch))


def _rate(work: Callable[[], object]) -> float:
    """Calls a second, after one that warms."""
    work()
    begin, calls = time.perf_counter(), 0
    while (elapsed := time.perf_counter() - begin) < LEAST_S:
        work()
        calls += 1
    return calls / elapsed
