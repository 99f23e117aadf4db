"""The batcher's state machine: who is admitted, who waits, what runs next. No I/O, no clock, no thread.

::

    admit(n) ──▶ decoding ──submit──▶ waiting ──form──▶ running ──settle──▶ (answered)
                    │ release: a bad image  │ abandon: the client left
                    │ withdraw: it left     │ form, expire: its deadline passed
                    ▼                       │
                 (slots back) ◀───settle────┘

    in use = decoding + waiting + running + dropped but not yet answered  ≤  max_queue_size

Every transition takes the time as an argument. The shell (`service.batcher.batcher`) calls them: all from
the event loop but `form`, which the engine thread calls; those that touch the waiting line do so
under the shell's lock.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from enum import StrEnum
from typing import Generic, Protocol, TypeVar

from service.batcher.cost import CostModel, DecodePace, Lateness
from service.errors import (
    DeadlineExceeded,
    NotReady,
    Overloaded,
    RequestError,
    ShuttingDown,
    TooManyImages,
)

# `Retry-After` never says "at once" to someone who was just refused.
_MIN_RETRY_S = 0.001


class State(StrEnum):
    """Where a batcher is in its life. It only moves downwards in this list."""

    OPEN = "open"
    DRAINING = "draining"  # refuses new work, finishes what it has
    CLOSED = "closed"
    FAILED = "failed"  # the engine thread died or hangs; only a restart helps


class Waiting(Protocol):
    """What the machine must know of an instance."""

    @property
    def enqueued_at(self) -> float:
        """When it was submitted."""

    @property
    def deadline(self) -> float:
        """From when on nobody wants its answer; ``inf`` where there is none."""

    @property
    def is_abandoned(self) -> bool:
        """Whether its client left."""


T = TypeVar("T", bound=Waiting)


@dataclass(slots=True)
class Formed(Generic[T]):
    """What `BatchQueue.form` found.

    Attributes:
        batch: To be run now, in order of arrival; empty when there is nothing to run.
        expired: Dropped, their deadline has passed.
        abandoned: Dropped, their client has left.
        linger_until: The moment until which the engine should wait for company; None: for the next
            instance, however long it takes.
    """

    batch: list[T]
    expired: list[T]
    abandoned: list[T]
    linger_until: float | None = None


class BatchQueue(Generic[T]):
    """Admission, the line of waiting instances, and what is known of the running batch."""

    def __init__(
        self, *, max_batch_size: int, max_queue_size: int, max_queue_delay_s: float, cost: CostModel
    ) -> None:
        self.max_batch_size = max_batch_size
        self.max_queue_size = max_queue_size
        self.max_queue_delay_s = max_queue_delay_s
        self.cost = cost
        self.pace = DecodePace()
        self.lateness = Lateness()
        self.state = State.OPEN
        self.in_use = 0
        self.decoding = 0
        self.running = 0
        self.running_since: float | None = None
        self._line: OrderedDict[T, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._line)

    def __repr__(self) -> str:
        return (
            f"<BatchQueue {self.state}: {self.decoding} decoding, {len(self)} waiting, "
            f"{self.running} running, {self.in_use} of {self.max_queue_size} slots in use>"
        )

    @property
    def batch_limit(self) -> int:
        """The largest batch that is formed at present."""
        return self.cost.worthwhile_size(self.max_batch_size)

    def admit(self, n: int, deadline: float, now: float) -> float:
        """Take n slots, or none and raise.

        Returns:
            When the answer is predicted to come.

        Raises:
            RequestError: As `foresee`.
        """
        answer_at = self.foresee(n, deadline, now)
        if not self.decoding:
            self.pace.resume(now)
        self.in_use += n
        self.decoding += n
        return answer_at

    def foresee(self, n: int, deadline: float, now: float, places: int | None = None) -> float:
        """When the answer to n instances that are admitted now is predicted to come.

        Args:
            n: Instances.
            deadline: From when on their answer is worth nothing.
            now: The time.
            places: Slots that there are; None: ``max_queue_size``.

        Raises:
            ShuttingDown, NotReady: The batcher takes no work any more.
            TooManyImages: n instances never fit.
            DeadlineExceeded: The deadline has passed already.
            Overloaded: Not enough free slots now, or the answer would come after the deadline.
        """
        if self.state is not State.OPEN:
            raise self.refusal()
        places = self.max_queue_size if places is None else min(places, self.max_queue_size)
        if self.in_use + n > places:
            raise self._full(n, now, places)
        answer_at = now + self.drain_s(n, now)
        # An idle engine refuses what is certain to be late, not what is predicted to be: trying is how a
        # wrong prediction is corrected. For the same reason a short wait is at most doubled, however late the
        # last answers were.
        margin_s = min(self.lateness.margin_s, answer_at - now)
        certain_at = answer_at + margin_s if self.in_use else now + self.cost.best_s
        if deadline <= now or certain_at > deadline:
            raise self._too_late(n, deadline, now)
        return answer_at

    def release(self, n: int, now: float) -> None:
        """Give back n admitted slots whose images were decoded, but turned out bad."""
        for _ in range(n):
            self.pace.learn(now)
        self.withdraw(n)

    def withdraw(self, n: int) -> None:
        """Give back n admitted slots whose images nobody wants any more."""
        self.decoding -= n
        self.in_use -= n

    def submit(self, instance: T) -> None:
        """Put an admitted instance at the end of the line."""
        self.pace.learn(instance.enqueued_at)
        self.decoding -= 1
        self._line[instance] = None

    def abandon(self, instance: T) -> bool:
        """Take an instance out of the line, wherever it stands; False if it is not there any more."""
        return self._line.pop(instance, self) is None

    def form(self, now: float) -> Formed[T]:
        """The engine is free: take the next batch out of the line."""
        self.running = 0
        self.running_since = None
        line = self._line
        formed: Formed[T] = Formed([], [], [])
        if line and self.max_queue_delay_s and self._should_linger(formed, now):
            return formed
        batch, limit = formed.batch, self.batch_limit
        # Who cannot be answered in time any more is not run. For the first that must be certain, or a
        # wrong prediction would never be corrected.
        doomed_at = now + self.cost.best_s
        while line and len(batch) < limit:
            instance, _ = line.popitem(last=False)
            if instance.is_abandoned:
                formed.abandoned.append(instance)
            elif instance.deadline <= doomed_at:
                formed.expired.append(instance)
            else:
                batch.append(instance)
                doomed_at = now + self.cost.predict_s(1)
        if batch:
            self.running = len(batch)
            self.running_since = now
        return formed

    def expire(self, now: float) -> list[T]:
        """Take everything out of the line whose deadline has passed."""
        expired = [instance for instance in self._line if instance.deadline <= now]
        for instance in expired:
            del self._line[instance]
        return expired

    def empty(self) -> list[T]:
        """Take everything out of the line."""
        line = list(self._line)
        self._line.clear()
        return line

    def settle(self, n: int) -> None:
        """Give back the slots of n instances that have been answered."""
        self.in_use -= n

    def drain_s(self, n: int, now: float) -> float:
        """Seconds until everything admitted and n instances more would be answered."""
        inference_s = self._running_s(now) + self.cost.drain_s(
            self.in_use - self.running + n, self.batch_limit
        )
        return max(inference_s, self.pace.drain_s(self.decoding + n))

    def wait_s(self, now: float) -> float:
        """Seconds until the inference of an instance admitted now would begin."""
        limit = self.batch_limit
        full = (self.in_use - self.running) // limit
        inference_s = self._running_s(now) + full * self.cost.predict_s(limit)
        return max(inference_s, self.pace.drain_s(self.decoding))

    def age_s(self, now: float) -> float:
        """Seconds the oldest waiting instance has waited."""
        oldest = next(iter(self._line), None)
        return 0.0 if oldest is None else max(0.0, now - oldest.enqueued_at)

    def is_stuck(self, now: float, timeout_s: float) -> bool:
        """Whether the running batch has taken longer than any batch may."""
        return self.running_since is not None and now - self.running_since > timeout_s

    def refusal(self) -> RequestError:
        """Why nothing is admitted in this state."""
        if self.state is State.FAILED:
            return NotReady("the inference engine has stopped; the process must be restarted")
        return ShuttingDown("the model is being shut down; send the request elsewhere or again")

    def _running_s(self, now: float) -> float:
        since = self.running_since
        return 0.0 if since is None else max(0.0, self.cost.predict_s(self.running) - (now - since))

    def _should_linger(self, formed: Formed[T], now: float) -> bool:
        until = next(iter(self._line)).enqueued_at + self.max_queue_delay_s
        if now >= until or len(self._line) >= self.batch_limit or self.state is not State.OPEN:
            return False
        formed.linger_until = until
        return True

    def _full(self, n: int, now: float, places: int) -> RequestError:
        if n > self.max_queue_size:
            return TooManyImages(f"{n} images in one request, but the queue holds {self.max_queue_size}")
        return Overloaded(
            f"the queue is full: {self.in_use} of {places} places are taken, {n} wanted",
            max(_MIN_RETRY_S, self.drain_s(0, now)),
        )

    def _too_late(self, n: int, deadline: float, now: float) -> RequestError:
        if deadline <= now:
            return DeadlineExceeded("the deadline had passed before the request was admitted")
        wait_s = self.drain_s(n, now)
        return Overloaded(
            f"the answer would take {wait_s:.3f} s, give or take {self.lateness.margin_s:.3f} s, "
            f"but its deadline is in {deadline - now:.3f} s",
            max(_MIN_RETRY_S, wait_s),
        )
