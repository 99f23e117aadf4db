"""Where the event loop and the engine thread meet: the waiting line under a lock, and the thread's sleep.

::

    event loop     submit · abandon · expire · empty        wake
                            │      (lock)                     ▼
    engine thread        [ line ] ──── take ◀── asleep until somebody comes, or the delay is over

A thread that runs a batch is not woken: it looks into the line by itself when it is done.
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
    """The line between two threads.

    Args:
        queue: The state machine; its line is touched by nobody else from now on.
        clock: Seconds.

    Attributes:
        is_stopped: Whether the engine thread is to end.
    """

    def __init__(self, queue: BatchQueue[QueuedInstance], clock: Callable[[], float]) -> None:
        self.is_stopped = False
        self._queue = queue
        self._clock = clock
        self._lock = threading.Lock()  # guards the line and all that follows
        self._wake_at = _NEVER
        self._unanswered: set[Batch] = set()
        self._alarm = SimpleQueue[None]()  # a token too many only makes the thread look once in vain

    @property
    def is_idle(self) -> bool:
        """Whether the engine thread sleeps."""
        return self._wake_at != _NEVER

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
        """Have the engine thread look into the line."""
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
        """Have the thread end when it next looks; the batches that are now to be failed."""
        with self._lock:
            self.is_stopped = True
            unanswered = list(self._unanswered)
            self._unanswered.clear()
        self.wake()
        return unanswered

    # The engine thread's side.

    def take(self) -> tuple[Batch | None, Formed[QueuedInstance]] | None:
        """Sleep until there is a batch to run or somebody to be told of a drop; None: it is time to end."""
        while True:
            with self._lock:
                if self.is_stopped:
                    return None
                formed = self._queue.form(self._clock())
                batch = self._claim(formed)
            if batch is not None or formed.expired or formed.abandoned:
                return batch, formed
            self._sleep(formed.linger_until)

    def _claim(self, formed: Formed[QueuedInstance]) -> Batch | None:
        if formed.batch:
            self._wake_at = _NEVER
            batch = Batch(formed.batch)
            self._unanswered.add(batch)
            return batch
        self._wake_at = 1 if formed.linger_until is None else self._queue.batch_limit
        return None

    def _sleep(self, until: float | None) -> None:
        try:
            self._alarm.get(timeout=None if until is None else max(0.0, until - self._clock()))
        except Empty:
            return  # nobody came in time; what waits goes alone
