"""Batchers with one plausible bug each. The promise named beside it must not hold for it."""

from __future__ import annotations

import asyncio
from typing import Any

from service.batcher import Batcher, Permit, Row, State
from service.batcher.batch import Batch, Load, Pixels, QueuedInstance
from service.batcher.waiting import BatchQueue, Formed, Running

Queue = BatchQueue[QueuedInstance]


class _WithQueue(Batcher):
    """A batcher whose state machine is another one."""

    queue: type[Queue]

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **options)
        self._queue.__class__ = self.queue


class LimitOffByOne(_WithQueue):
    """One slot too many."""

    class queue(Queue):  # noqa: N801
        def admit(self, n: int, deadline: float, now: float) -> float:
            self.max_queue_size += 1
            try:
                return super().admit(n, deadline, now)
            finally:
                self.max_queue_size -= 1


class PartialAdmission(_WithQueue):
    """Takes the slots that are there before it refuses."""

    class queue(Queue):  # noqa: N801
        def admit(self, n: int, deadline: float, now: float) -> float:
            if self.in_use + n > self.max_queue_size:
                free = self.max_queue_size - self.in_use
                self.in_use += free
                self.decoding += free
            return super().admit(n, deadline, now)


class LeakOnLeave(Batcher):
    """The slots of a client that left while it waited do not come back."""

    def _abandon(self, instance: QueuedInstance) -> None:
        self._handover.abandon(instance)


class LeakOnRelease(Batcher):
    """The slots of bad images do not come back."""

    def _release(self, n: int) -> None:
        self._queue.decoding -= n


class LeakOnWithdraw(Batcher):
    """The slots of a client that left while its images were decoded do not come back."""

    def _withdraw(self, n: int) -> None:
        self._queue.decoding -= n


class FormsEarly(Batcher):
    """Forms the next batch as soon as somebody waits, not when the engine is free."""

    def submit(self, permit: Permit, image: Pixels | Load) -> asyncio.Future[Row]:
        future = super().submit(permit, image)
        self._queue.max_batch_size = 1
        return future


class WaitsForCompany(_WithQueue):
    """An idle engine waits until a batch is full."""

    class queue(Queue):  # noqa: N801
        def form(self, now: float, lane: int = 0) -> Formed[QueuedInstance]:
            if 0 < len(self) < self.max_batch_size and self.state is State.OPEN:
                return Formed([], [], [])
            return super().form(now, lane)


class LastComeFirstServed(_WithQueue):
    """Takes the newest first."""

    class queue(Queue):  # noqa: N801
        def form(self, now: float, lane: int = 0) -> Formed[QueuedInstance]:
            line = list(reversed(self._line))
            self._line.clear()
            self._line.update(dict.fromkeys(line))
            return super().form(now, lane)


class BatchTooLarge(_WithQueue):
    """One instance too many in a batch."""

    class queue(Queue):  # noqa: N801
        def form(self, now: float, lane: int = 0) -> Formed[QueuedInstance]:
            self.max_batch_size += 1
            try:
                return super().form(now, lane)
            finally:
                self.max_batch_size -= 1


class RunsTheExpired(_WithQueue):
    """Forgets the deadlines."""

    class queue(Queue):  # noqa: N801
        def submit(self, instance: QueuedInstance) -> None:
            instance.deadline = float("inf")
            super().submit(instance)


class RunsTheAbandoned(_WithQueue):
    """Runs instances whose client left."""

    class queue(Queue):  # noqa: N801
        def form(self, now: float, lane: int = 0) -> Formed[QueuedInstance]:
            formed = super().form(now, lane)
            formed.batch.extend(formed.abandoned)
            formed.abandoned.clear()
            return formed


class DropsUncounted(Batcher):
    """Drops the expired without telling anybody but them."""

    def _drop_expired(self, expired: list[QueuedInstance]) -> None:
        observer, self._observer = self._observer, type(self._observer)()
        super()._drop_expired(expired)
        self._observer = observer


class RowsRotated(Batcher):
    """Everybody gets a neighbour's row."""

    def _gather(self, instances: list[QueuedInstance], buffer: Pixels) -> Pixels:
        return super()._gather([*instances[1:], instances[0]], buffer)


class RowsReversed(Batcher):
    """The batch is filled from the other end."""

    def _gather(self, instances: list[QueuedInstance], buffer: Pixels) -> Pixels:
        return super()._gather(instances[::-1], buffer)


class AnswersTwice(Batcher):
    """The wake-up comes twice."""

    def _answer(self, batch: Batch) -> None:
        super()._answer(batch)
        self._handover._unanswered.add(batch)
        super()._answer(batch)


class ForgetsTheLast(Batcher):
    """The last member of a batch is never answered."""

    def _answer(self, batch: Batch) -> None:
        if len(batch.instances) > 1 and batch.result is not None:
            batch.instances.pop()
            batch.result.queue_s.pop()
        super()._answer(batch)


class FailureSpreads(Batcher):
    """A failing batch takes everybody who waits with it."""

    def _fail_batch(self, batch: Batch) -> None:
        batch.instances.extend(self._handover.empty())
        super()._fail_batch(batch)


class FailureIsFinal(Batcher):
    """A failing batch ends the engine."""

    def _fail_batch(self, batch: Batch) -> None:
        super()._fail_batch(batch)
        self._fail("a batch failed")


class IgnoresDecoding(_WithQueue):
    """Predicts the wait from the line alone."""

    class queue(Queue):  # noqa: N801
        def drain_s(self, n: int, now: float) -> float:
            return super().drain_s(n - self.decoding, now)


class IgnoresTheRunning(_WithQueue):
    """Forgets that a batch is running."""

    class queue(Queue):  # noqa: N801
        def _free_in(self, running: Running | None, now: float) -> float:
            return 0.0


class AdmitsTheHopeless(_WithQueue):
    """Admits whatever fits."""

    class queue(Queue):  # noqa: N801
        def admit(self, n: int, deadline: float, now: float) -> float:
            return super().admit(n, float("inf"), now)


class ClosesAtOnce(Batcher):
    """Does not drain."""

    async def close(self, grace_s: float) -> None:
        await super().close(0)


class ClosesOpen(Batcher):
    """Goes on admitting while it closes."""

    async def close(self, grace_s: float) -> None:
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await super().close(grace_s)


class LeavesTheRest(Batcher):
    """Forgets the line when the grace is over."""

    def _fail_line(self) -> None:
        pass


class BlindToHangs(_WithQueue):
    """Believes that every batch ends."""

    class queue(Queue):  # noqa: N801
        def is_stuck(self, now: float, timeout_s: float) -> bool:
            return False


class ImpatientWithBatches(_WithQueue):
    """Takes every running batch for a hang."""

    class queue(Queue):  # noqa: N801
        def is_stuck(self, now: float, timeout_s: float) -> bool:
            return any(self.running)


class DeathUnnoticed(Batcher):
    """The thread dies in silence, and nobody looks after it."""

    def check(self) -> None:
        pass

    def _serve(self, lane: int) -> None:
        post = self._post
        self._post = lambda callback, *arguments: (  # type: ignore[method-assign]
            None if callback == self._fail else post(callback, *arguments)
        )
        super()._serve(lane)


class RunningForgotten(Batcher):
    """Fails those who wait, but not those in the lost batch."""

    def _stop(self) -> None:
        self._handover._unanswered.clear()
        super()._stop()


ALL: list[tuple[int, type[Batcher]]] = [
    (1, LimitOffByOne),
    (1, PartialAdmission),
    (1, LeakOnLeave),
    (1, LeakOnRelease),
    (1, LeakOnWithdraw),
    (2, FormsEarly),
    (2, WaitsForCompany),
    (3, LastComeFirstServed),
    (3, BatchTooLarge),
    (4, RunsTheExpired),
    (4, RunsTheAbandoned),
    (4, DropsUncounted),
    (5, RowsRotated),
    (5, RowsReversed),
    (5, AnswersTwice),
    (5, ForgetsTheLast),
    (6, FailureSpreads),
    (6, FailureIsFinal),
    (7, IgnoresDecoding),
    (7, IgnoresTheRunning),
    (7, AdmitsTheHopeless),
    (8, ClosesAtOnce),
    (8, ClosesOpen),
    (8, LeavesTheRest),
    (9, BlindToHangs),
    (9, ImpatientWithBatches),
    (9, DeathUnnoticed),
    (9, RunningForgotten),
]
