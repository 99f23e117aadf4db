"""What one model version did.

::

    request, batch   ─▶ noted: numbers appended to a list          on the request's way
    256 requests, or a scrape ─▶ settled: counted together, sorted and cut at the buckets' edges

Counted one by one the same numbers cost three times as much, and on the request's way the caches are cold.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Final, NamedTuple, Protocol, get_args

import numpy as np
from numpy.typing import NDArray

from service.errors import Reason
from service.metrics.drift import Drift
from service.metrics.families import MAX_LABELS, OTHER_LABEL, Families, Stage

# What may wait to be counted: so many batches, and of their probabilities 64 KiB.
_MOST_BATCHES: Final = 256
_MOST_PROBABILITIES: Final = 16384


class AnsweredBatch(Protocol):
    """What is read of a batch that ran."""

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """float32 [N, K]."""

    @property
    def queue_s(self) -> list[float]:
        """Seconds each member waited."""

    @property
    def inference_s(self) -> float:
        """Seconds with the engine."""

    @property
    def left(self) -> int:
        """Members whose client went away while it ran."""

    @property
    def started(self) -> float:
        """When the engine got it; seconds."""


class _Noted(NamedTuple):
    """What is kept of a batch until it is counted."""

    probabilities: NDArray[np.float32]
    queue_s: list[float]
    inference_s: float
    left: int
    started: float


class ModelMetrics:
    """The series of one model version, found once. It is the observer of that version's batcher.

    Attributes:
        note: Stage → what takes the seconds that one image (for receive and serialize: one request) spent in
            it. A list's own method: a call of ours would cost three times as much.
        drift: How far it is from its training; None where its file does not say what training saw, and
            while it is not loaded.
    """

    def __init__(
        self, families: Families, name: str, version: str, labels: Sequence[str], threshold: float | None
    ) -> None:
        self.drift: Drift | None = None
        self._images = families.images
        self._cancelled = families.cancelled
        self._key = (name, version)
        self._labels = tuple(labels)
        self._threshold = threshold
        self._counts = np.zeros(len(labels), np.int64)
        stages: tuple[Stage, ...] = get_args(Stage)
        self._stages = {stage: families.stage_duration.labels(name, version, stage) for stage in stages}
        self._seconds: dict[Stage, list[float]] = {stage: [] for stage in stages}
        self.note: Mapping[Stage, Callable[[float], None]] = {
            stage: seconds.append for stage, seconds in self._seconds.items()
        }
        self._batches_noted: list[_Noted] = []
        self._room = _MOST_PROBABILITIES
        self._predicted = families.images.labels(name, version, "predicted")
        self._batch_size = families.batch_size.labels(name, version)
        self._batches = families.batches.labels(name, version)
        self._confidence = families.confidence.labels(name, version)

    def is_of(self, labels: Sequence[str], threshold: float | None) -> bool:
        """Whether it counts these labels; a version may be replaced by one of the same number."""
        return (self._labels, self._threshold) == (tuple(labels), threshold)

    def image_rejected(self, reason: Reason, n: int = 1) -> None:
        """n images got this error instead of a prediction."""
        self._images.labels(*self._key, reason.value).inc(n)

    def batch_finished(self, batch: AnsweredBatch) -> None:
        """A batch was answered."""
        noted = _Noted(batch.probabilities, batch.queue_s, batch.inference_s, batch.left, batch.started)
        self._batches_noted.append(noted)
        self._room -= noted.probabilities.size
        if self._room <= 0 or len(self._batches_noted) >= _MOST_BATCHES:
            self._settle_batches()

    def batch_failed(self, size: int) -> None:
        """The engine raised for a batch of so many instances, or stopped under it."""
        self._batches.inc()
        self._batch_size.observe(size)

    def instances_cancelled(self, stage: Stage, n: int) -> None:
        """The clients of n images left."""
        self._cancelled.labels(stage).inc(n)
        self._images.labels(*self._key, "cancelled").inc(n)

    def instances_failed(self, reason: Reason, n: int) -> None:
        """n images got this error instead of a prediction."""
        self.image_rejected(reason, n)

    def predictions(self) -> Iterator[tuple[str, int]]:
        """(label, how often it was predicted)."""
        counts = self._counts.tolist()
        yield from zip(self._labels[:MAX_LABELS], counts, strict=False)
        if len(counts) > MAX_LABELS:
            yield OTHER_LABEL, sum(counts[MAX_LABELS:])

    def settle(self) -> None:
        """Count what was noted."""
        self._settle_batches()
        for stage, seconds in self._seconds.items():
            if seconds:
                self._stages[stage].observe_all(seconds)
                seconds.clear()

    def _settle_batches(self) -> None:
        batches, self._batches_noted = self._batches_noted, []
        self._room = _MOST_PROBABILITIES
        if not batches:
            return
        sizes = [len(batch.queue_s) for batch in batches]
        self._batches.inc(len(batches))
        self._batch_size.observe_all(sizes)
        self._predicted.inc(sum(sizes) - sum(batch.left for batch in batches))
        for size, batch in zip(sizes, batches, strict=True):
            self._seconds["queue"] += batch.queue_s
            self._stages["inference"].observe_times(batch.inference_s, size)
        self._settle_predictions(batches, sizes)

    def _settle_predictions(self, batches: Sequence[_Noted], sizes: Sequence[int]) -> None:
        probabilities = np.concatenate([batch.probabilities for batch in batches])
        best, confidences = probabilities.argmax(axis=1), probabilities.max(axis=1)
        self._confidence.observe_all(confidences.tolist())
        if self._threshold is not None:
            self._counts += (probabilities >= self._threshold).sum(axis=0)
        elif self._labels:
            self._counts += np.bincount(best, minlength=len(self._counts))
        if self.drift is not None:
            _sample(self.drift, batches, sizes, best, confidences)


def _sample(
    drift: Drift,
    batches: Sequence[_Noted],
    sizes: Sequence[int],
    best: NDArray[np.intp],
    confidences: NDArray[np.float32],
) -> None:
    """Show the batches that are due, each by its own moment, what was predicted for them.

    Args:
        sizes: Of the batches, in order.
        best: The most probable label of every instance in them.
        confidences: Its probability.
    """
    end = 0
    for size, batch in zip(sizes, batches, strict=True):
        begin, end = end, end + size
        if batch.started >= drift.batch_due:
            own = slice(begin, end)
            drift.observe_predictions(best[own].copy(), confidences[own].copy(), batch.started)
