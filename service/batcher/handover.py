"""Where the event loop and the engine's threads meet: the waiting line under a lock, and the threads' sleep.

::

    event loop     submit · abandon · expire · empty        wake
                            │      (lock)                     ▼
    engine threads       [ line ] ──── take ◀── asleep until somebody comes, or the delay is over

A thread that runs a batch is not woken: it looks into the line by itself when it is done. Of those that sleep
one is woken, and it wakes the next if it leaves somebody behind in the line for another lane.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from queue import Empty, SimpleQueue

from service.batcher.batch import Batch, QueuedInstance
from service.batcher.waiting import BatchQueue, Formed

# Length of the line at which a thread that does not sleep is woken.
_NEVER = 1 << 62


class HandOver:
    """The line between the event loop's thread and the engine's.

    Args:
        queue: The state machine; its line is touched by nobody else from now on. A lane has a thread.
        clock: Seconds.

    Attributes:
        is_stopped: Whether the engine's threads are to end.
    """

    def __init__(self, queue: BatchQueue[QueuedInstance], clock: Callable[[], float]) -> None:
        self.is_stopped = False
        self._queue = queue
        self._clock = clock
        self._lock = threading.Lock()  # guards the line and all that follows
        self._wake_at = _NEVER
        self._asleep = 0
        self._unanswered: set[Batch] = set()
        self._alarm = SimpleQueue[None]()  # a token too many only makes the thread look once in vain

    @property
    def is_idle(self) -> bool:
        """Whether all engine threads sleep, and nobody has come."""
        return self._asleep == self._queue.lanes and self._wake_at != _NEVER

    # The event loop's side.

    def submit(self, instance: QueuedInstance) -> bool:
        """Put an admitted instance at the end of the line; whether `wake` must be called for it."""
        with self._lock:
            self._queue.submit(instance)
            if len(self._queue) < self._wake_at:
                return False
            self._wake_at = _NEVER
            return True

    def wake(self) -> None:
        """Have a sleeping thread look into the line."""
        self._alarm.put(None)

    def wake_all(self) -> None:
        """Have every thread that sleeps look into the line."""
        for _ in range(self._queue.lanes):
            self._alarm.put(None)

    def abandon(self, instance: QueuedInstance) -> bool:
        """Take an instance out of the line; False if it is not there any more."""
        with self._lock:
            return self._queue.abandon(instance)

    def expire(self, now: float) -> list[QueuedInstance]:
        """Take everything out of the line whose deadline has passed."""
        with self._lock:
            return self._queue.expire(now)

    def empty(self) -> list[QueuedInstance]:
        """Take everything out of the line."""
        with self._lock:
            return self._queue.empty()

    def age_s(self) -> float:
        """Seconds the oldest waiting instance has waited."""
        with self._lock:
            return self._queue.age_s(self._clock())

    def answer(self, batch: Batch) -> bool:
        """Take the duty to answer a batch; False if somebody else has."""
        with self._lock:
            if batch not in self._unanswered:
                return False
            self._unanswered.remove(batch)
            return True

    def stop(self) -> list[Batch]:
        """Have the threads end when they next look; the batches that are now to be failed."""
        with self._lock:
            self.is_stopped = True
            unanswered = list(self._unanswered)
            self._unanswered.clear()
        self.wake_all()
        return unanswered

    def take_lone(self) -> tuple[Batch | None, Formed[QueuedInstance]] | None:
        """As `take`, for the event loop's thread: what waits, if it is one instance and all threads sleep.

        `end_lone` must be called when it has run.
        """
        with self._lock:
            if self.is_stopped or len(self._queue) != 1 or self._asleep < self._queue.lanes:
                return None
            now = self._clock()
            formed = self._queue.form(now)
            return (self._claimed(formed, now, 0) if formed.batch else None), formed

    def end_lone(self) -> None:
        """The lone instance has run: who comes next wakes a thread."""
        with self._lock:
            self._queue.running[0] = None
            self._wake_at = 1

    # The engine threads' side.

    def take(self, lane: int = 0) -> tuple[Batch | None, Formed[QueuedInstance]] | None:
        """Sleep until there is a batch to run or somebody to be told of a drop; None: it is time to end.

        Args:
            lane: Of the calling thread.
        """
        slept = False
        while True:
            with self._lock:
                self._asleep -= slept
                if self.is_stopped:
                    return None
                now = self._clock()
                formed = self._queue.form(now, lane)
                if formed.batch:
                    return self._claimed(formed, now, lane), formed
                if formed.expired or formed.abandoned:
                    return None, formed
                self._asleep += 1
                self._wake_at = self._next_wake(formed)
            self._sleep(formed.linger_until)
            slept = True

    def put_back(self, batch: Batch, first: int) -> None:
        """Go on with less: the instances from the first of these on go back to where they stood in line."""
        with self._lock:
            batch.members = batch.instances[:first]
            if batch in self._unanswered:  # else all of them have been failed
                self._queue.put_back(batch.instances[first:], batch.lane)
                batch.instances = batch.members
                if self._asleep:
                    self.wake()

    def _claimed(self, formed: Formed[QueuedInstance], now: float, lane: int) -> Batch:
        self._wake_at = self._next_wake(formed)
        if self._asleep and len(self._queue) >= self._wake_at:
            self.wake()
        batch = Batch(formed.batch, now, formed.share, lane)
        self._unanswered.add(batch)
        return batch

    def _next_wake(self, formed: Formed[QueuedInstance]) -> int:
        """The length of the line from which on a sleeping thread has something to do."""
        if not self._asleep or self._queue.is_wide:
            return _NEVER
        return 1 if formed.linger_until is None else self._queue.batch_limit

    def _sleep(self, until: float | None) -> None:
        try:
            self._alarm.get(timeout=None if until is None else max(0.0, until - self._clock()))
        except Empty:
            return  # nobody came in time; what waits goes alone
