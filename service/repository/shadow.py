"""The shadow: a candidate gets copies of what the live version answered, and the answers are compared.

::

    live answer sent ──▶ offer ──▶ [ at most 64 waiting ] ──▶ decode ──▶ candidate's batcher ──▶ compare
                           │
                           └ dropped: the live version has work waiting, or the shadow is behind

    distance   ½ Σ |p − q|        over the labels of both: total variation, 0…1      (multiclass)
               mean |p − q|       over the labels of both                            (multilabel)

One copy at a time is worked on, by one thread, so the shadow never takes more than one core; what it is
behind with is dropped. Nothing of it reaches a client, and a candidate that fails or hangs is only counted.

Source: Levin, Peres, Markov Chains and Mixing Times, section 4.1 (total variation distance).
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Final

import numpy as np
from numpy.typing import NDArray

from service.artifact import Task
from service.batcher import Row
from service.errors import RequestError
from service.images import decode
from service.metrics import ShadowMetrics
from service.repository.served import Encoded, Instance, Outcome, Pixels, ServedModel

logger = logging.getLogger(__name__)

# Copies that wait, and their bytes: what the shadow may cost in memory.
_MOST_WAITING: Final = 64
_MOST_BYTES: Final = 16 * 1024 * 1024


class Shadow:
    """One candidate behind one live version. All methods are for the event loop's thread.

    Args:
        live: Whose traffic is copied.
        candidate: Who gets the copies.
        metrics: Where the comparison is counted.
    """

    def __init__(self, live: ServedModel, candidate: ServedModel, metrics: ShadowMetrics) -> None:
        self.live = live
        self.candidate = candidate
        self._metrics = metrics
        self._comparison = Comparison(live, candidate)
        self._waiting: deque[tuple[Encoded | Pixels, Row]] = deque()
        self._waiting_bytes = 0
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="shadow")
        self._working: asyncio.Task[None] | None = None
        self._is_closed = False

    def __repr__(self) -> str:
        return f"<Shadow {self.candidate.version} behind {self.live.version}, {len(self._waiting)} waiting>"

    @property
    def is_idle(self) -> bool:
        """Whether everything that was taken has been compared."""
        return self._working is None

    def offer(self, instances: Sequence[Instance], outcomes: Sequence[Outcome]) -> None:
        """Copies of one answered request; those that there is no room or no time for are dropped.

        A request that was answered just before the end may still come; nothing becomes of it.
        """
        if self._is_closed:
            return
        for instance, outcome in zip(instances, outcomes, strict=True):
            if isinstance(instance, RequestError) or isinstance(outcome, RequestError):
                continue
            if self._has_room(instance):
                self._take(instance, outcome)
            else:
                self._metrics.dropped.inc()

    def close(self) -> None:
        """Work no more."""
        self._is_closed = True
        self._waiting.clear()
        if self._working is not None:
            self._working.cancel()
        self._thread.shutdown(wait=False, cancel_futures=True)

    def _has_room(self, instance: Encoded | Pixels) -> bool:
        return (
            not self.live.batcher.depth
            and len(self._waiting) < _MOST_WAITING
            and self._waiting_bytes + _size(instance) <= _MOST_BYTES
        )

    def _take(self, instance: Encoded | Pixels, row: Row) -> None:
        # A view would keep the whole body of its request.
        kept = bytes(instance) if isinstance(instance, memoryview) else instance
        self._waiting.append((kept, row))
        self._waiting_bytes += _size(kept)
        if self._working is None:
            self._working = asyncio.create_task(self._work())

    async def _work(self) -> None:
        while self._waiting:
            instance, row = self._waiting.popleft()
            self._waiting_bytes -= _size(instance)
            await self._compare(instance, row)
        self._working = None

    async def _compare(self, instance: Encoded | Pixels, row: Row) -> None:
        try:
            other = await self._ask(instance)
        except RequestError as error:
            logger.debug("the shadow %s failed: %s", self.candidate.version, error)
            self._metrics.failed.inc()
            return
        except Exception:  # whatever it is, the next copy may do better
            logger.exception("the shadow %s failed in a way nobody thought of", self.candidate.version)
            self._metrics.failed.inc()
            return
        agrees, distance = self._comparison(row.probabilities, other.probabilities)
        (self._metrics.agreed if agrees else self._metrics.differed).inc()
        self._metrics.distance.observe(distance)
        self._metrics.live_inference.observe(row.inference_s)
        self._metrics.candidate_inference.observe(other.inference_s)

    async def _ask(self, instance: Encoded | Pixels) -> Row:
        """The candidate's answer, to what it makes of the image."""
        if not isinstance(instance, np.ndarray):
            contract = self.candidate.metadata.input
            loop = asyncio.get_running_loop()
            instance = await loop.run_in_executor(self._thread, decode, instance, contract)
        with self.candidate.batcher.admit(1) as permit:
            return await self.candidate.batcher.submit(permit, instance)


class Comparison:
    """How far the candidate's probabilities are from the live ones, label by label.

    Args:
        live: Whose labels come first.
        candidate: Whose labels may be others, or in another order.
    """

    def __init__(self, live: ServedModel, candidate: ServedModel) -> None:
        labels = list(dict.fromkeys((*live.labels, *candidate.labels)))
        position = {label: index for index, label in enumerate(labels)}
        self._live = np.array([position[label] for label in live.labels])
        self._candidate = np.array([position[label] for label in candidate.labels])
        is_exclusive = live.metadata.task is Task.MULTICLASS
        self._scale = 0.5 if is_exclusive else 1 / len(labels)
        self._count = len(labels)

    def __call__(self, live: NDArray[np.float32], candidate: NDArray[np.float32]) -> tuple[bool, float]:
        """Whether the most probable label is the same, and the distance, 0…1.

        Args:
            live: float32 [K] of the live version.
            candidate: float32 [K] of the other; K may differ.
        """
        difference = np.zeros(self._count)
        difference[self._live] += live
        difference[self._candidate] -= candidate
        agrees = self._live[live.argmax()] == self._candidate[candidate.argmax()]
        return bool(agrees), float(np.abs(difference).sum()) * self._scale


def _size(instance: Encoded | Pixels) -> int:
    return instance.nbytes if isinstance(instance, np.ndarray) else len(instance)
