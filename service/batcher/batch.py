"""One batch's data: its members, its buffer, its results, and the row of one instance."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.errors import RequestError

Pixels: TypeAlias = NDArray[np.uint8]
Floats: TypeAlias = NDArray[np.float32]
# Decodes an instance to uint8 [H, W, C]. Called on an engine thread; an error fails that instance alone.
Load: TypeAlias = Callable[[], Pixels]
# uint8 [N, H, W, C] → logits, probabilities float32 [N, K]. Called on an engine thread. The input
# is overwritten by the next batch; the results must not be. `EngineLost` says that no later batch will run.
Run: TypeAlias = Callable[[Pixels], tuple[Floats, Floats]]

# From so many labels on, finding the few best beats sorting all.
_MANY_LABELS = 256
_NO_PIXELS = np.empty(0, np.uint8)


class Row:
    """One instance's results: row ``index`` of its batch. The arrays are views, read-only by convention.

    Attributes:
        queue_s: Seconds it waited for its batch.
    """

    __slots__ = ("_batch", "_index", "queue_s")

    def __init__(self, batch: FinishedBatch, index: int, queue_s: float) -> None:
        self._batch = batch
        self._index = index
        self.queue_s = queue_s

    def __repr__(self) -> str:
        return f"<Row {self._index} of {self.batch_size}, {self.inference_s * 1e3:.2f} ms>"

    @property
    def logits(self) -> Floats:
        """float32 [K]."""
        row: Floats = self._batch.logits[self._index]
        return row

    @property
    def probabilities(self) -> Floats:
        """float32 [K]."""
        row: Floats = self._batch.probabilities[self._index]
        return row

    @property
    def inference_s(self) -> float:
        """Seconds its batch was with the engine."""
        return self._batch.inference_s

    @property
    def decode_s(self) -> float:
        """Seconds its batch was being decoded, between the line and the engine; 0 where it was before."""
        return self._batch.decode_s

    @property
    def started(self) -> float:
        """When its batch went to the engine, on the batcher's clock."""
        return self._batch.started

    @property
    def batch_size(self) -> int:
        """How many instances ran together."""
        return self._batch.size

    def top(self, k: int) -> list[tuple[int, float]]:
        """The k most probable labels as (index, probability), most probable first; ties by index."""
        return self._batch.ranked(k)[self._index][:k]


@dataclass(slots=True, eq=False)
class FinishedBatch:
    """What the engine gave for one batch.

    Attributes:
        logits: float32 [N, K].
        probabilities: float32 [N, K].
        inference_s: Seconds with the engine.
        queue_s: Seconds each member waited, in order.
        started: When the engine got it, on the batcher's clock.
        decode_s: Seconds the engine's thread took before that, to decode those members that were not.
        left: Members whose client went away while it ran.
    """

    logits: Floats
    probabilities: Floats
    inference_s: float
    queue_s: list[float]
    started: float
    decode_s: float = 0.0
    left: int = 0
    _ranked: list[list[tuple[int, float]]] | None = None
    _ranked_k: int = 0

    @property
    def size(self) -> int:
        """N."""
        return len(self.queue_s)

    def ranked(self, k: int) -> list[list[tuple[int, float]]]:
        """At least the k most probable labels of every row; ranked once for all its rows."""
        if self._ranked is None or self._ranked_k < k:
            self._ranked = _rank(self.probabilities, k)
            self._ranked_k = k
        return self._ranked


def _rank(probabilities: Floats, k: int) -> list[list[tuple[int, float]]]:
    """The k best of each row, as (index, value), best first; of equals the lower index first."""
    if probabilities.shape[1] > _MANY_LABELS and k < probabilities.shape[1] // 4:
        return [_best(row, k) for row in probabilities]
    order = np.argsort(-probabilities, axis=1, kind="stable")[:, :k]
    best = probabilities[np.arange(len(order))[:, np.newaxis], order]
    return [
        list(zip(indices, values, strict=True))
        for indices, values in zip(order.tolist(), best.tolist(), strict=True)
    ]


def _best(row: Floats, k: int) -> list[tuple[int, float]]:
    """The k best of one long row, without sorting the others: all that reach the k-th value, sorted."""
    threshold = np.partition(row, -k)[-k]
    candidates = np.flatnonzero(row >= threshold)
    values = row[candidates]
    order = np.argsort(-values, kind="stable")[:k]
    return list(zip(candidates[order].tolist(), values[order].tolist(), strict=True))


@dataclass(frozen=True, slots=True)
class Lanes:
    """How an engine runs a batch on each core, instead of one on all.

    Attributes:
        count: Cores; at least 2.
        run: A batch on one core; called by several threads at once.
    """

    count: int
    run: Run


class QueuedInstance:
    """An admitted instance in the line.

    Attributes:
        pixels: uint8 [H, W, C]; empty until it is decoded.
        load: What decodes it when its turn has come; None where that is over, or was never necessary.
        future: What its client awaits.
        enqueued_at: When it was submitted.
        deadline: From when on nobody wants its answer.
        answer_at: When its answer was predicted to come; None where that was said of a later one of
            the same request.
    """

    __slots__ = ("answer_at", "deadline", "enqueued_at", "future", "load", "pixels")

    def __init__(
        self,
        image: Pixels | Load,
        future: asyncio.Future[Row],
        enqueued_at: float,
        deadline: float,
        answer_at: float | None,
    ) -> None:
        self.pixels: Pixels = image if isinstance(image, np.ndarray) else _NO_PIXELS
        self.load: Load | None = None if isinstance(image, np.ndarray) else image
        self.future = future
        self.enqueued_at = enqueued_at
        self.deadline = deadline
        self.answer_at = answer_at

    @property
    def is_abandoned(self) -> bool:
        """Whether its client left."""
        return self.future.cancelled()

    @property
    def is_encoded(self) -> bool:
        """Whether it must be decoded before it can run."""
        return self.load is not None


class Batch:
    """A batch on its way through an engine thread and back.

    Attributes:
        instances: Those it was formed of, in order.
        started: When it was formed, on the batcher's clock.
        share: Of the machine that it runs on.
        lane: Of the thread.
        decode_s: Seconds that thread took to decode what was not.
        members: Those of ``instances`` that run.
        refused: The others, whose images turned out bad, each with its error.
        result: What the engine gave; None while it runs, and where it failed.
        error: Why it failed.
    """

    __slots__ = (
        "decode_s",
        "error",
        "instances",
        "lane",
        "members",
        "refused",
        "result",
        "share",
        "started",
    )

    def __init__(self, instances: list[QueuedInstance], started: float, share: float, lane: int) -> None:
        self.instances = instances
        self.started = started
        self.share = share
        self.lane = lane
        self.decode_s = 0.0
        self.members = instances
        self.refused: list[tuple[QueuedInstance, RequestError]] = []
        self.result: FinishedBatch | None = None
        self.error: Exception | None = None
