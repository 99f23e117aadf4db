"""The batcher's state machine: who is admitted, who waits, what runs next. No I/O, no clock, no thread.

::

    admit(n) ──▶ decoding ──submit──▶ waiting ──form──▶ running ──settle──▶ (answered)
                    │ release: a bad image  │ abandon: the client left
                    │ withdraw: it left     │ form, expire: its deadline passed
                    ▼                       │
                 (slots back) ◀───settle────┘

    in use = decoding + waiting + running + dropped but not yet answered  ≤  max_queue_size

An engine on several cores can be run in two ways: **wide**, one batch on all cores, or in **lanes**, a batch
on each core. A lone instance is answered soonest by all cores. But cores that work on one batch wait for each
other at the end of every operator, and in lanes they never wait. So the machine runs wide while fewer
instances wait than there are lanes, and else in lanes; never both at once, for then more threads would run
than there are cores. Instances that the thread that runs them has yet to decode go into lanes as well, if
they are more than one: else one core would decode while the others wait.

Every transition takes the time as an argument. The shell (`service.batcher.batcher`) calls them: all from
the event loop but `form`, which the engine's threads call; those that touch the waiting line do so
under the shell's lock.
"""

from __future__ import annotations

import math
from collections import OrderedDict
from dataclasses import dataclass, replace
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

    @property
    def is_encoded(self) -> bool:
        """Whether the engine's thread must decode it."""


T = TypeVar("T", bound=Waiting)


@dataclass(frozen=True, slots=True)
class Running:
    """A batch that is with the engine.

    Attributes:
        size: Its instances.
        since: When it was formed.
        share: Of the machine: 1 for a wide run, 1 / lanes in a lane.
    """

    size: int
    since: float
    share: float


@dataclass(slots=True)
class Formed(Generic[T]):
    """What `BatchQueue.form` found.

    Attributes:
        batch: To be run now, in order of arrival; empty when there is nothing to run.
        expired: Dropped, their deadline has passed.
        abandoned: Dropped, their client has left.
        linger_until: The moment until which the engine should wait for company; None: for the next
            instance, however long it takes.
        share: Of the machine that the batch is to run on.
    """

    batch: list[T]
    expired: list[T]
    abandoned: list[T]
    linger_until: float | None = None
    share: float = 1.0


class BatchQueue(Generic[T]):
    """Admission, the line of waiting instances, and what is known of the running batches.

    Costs are in seconds of the whole machine; a batch in a lane takes as many times longer as there are
    lanes.

    Args:
        max_batch_size: Most instances in one batch.
        max_queue_size: Most instances admitted and unanswered.
        max_queue_delay_s: How long an idle engine waits for company of the oldest waiting instance.
        cost: What a batch costs.
        lanes: How many batches can run at once, each on a core of its own; 1: every run is wide.
    """

    def __init__(
        self,
        *,
        max_batch_size: int,
        max_queue_size: int,
        max_queue_delay_s: float,
        cost: CostModel,
        lanes: int = 1,
    ) -> None:
        self.max_batch_size = max_batch_size
        self.max_queue_size = max_queue_size
        self.max_queue_delay_s = max_queue_delay_s
        self.cost = cost
        self.lanes = lanes
        self.pace = DecodePace()
        self.lateness = Lateness()
        self.state = State.OPEN
        self.in_use = 0
        self.decoding = 0
        self.running: list[Running | None] = [None] * lanes
        self._formed_at = -math.inf
        self._line: OrderedDict[T, None] = OrderedDict()

    def __len__(self) -> int:
        return len(self._line)

    def __repr__(self) -> str:
        return (
            f"<BatchQueue {self.state}: {self.decoding} decoding, {len(self)} waiting, "
            f"{self._in_engine} running, {self.in_use} of {self.max_queue_size} slots in use>"
        )

    @property
    def batch_limit(self) -> int:
        """The largest batch that is formed at present."""
        return self.cost.worthwhile_size(self.max_batch_size, self.lanes)

    @property
    def takes_encoded(self) -> bool:
        """Whether the engine's threads had better decode: one image, or one for each of several lanes.

        In between others decode at once what will run as one batch on all cores.
        """
        return self.lanes > 1 and (self.in_use == 1 or self.in_use >= self.lanes)

    @property
    def is_wide(self) -> bool:
        """Whether a batch has all cores at present."""
        return any(running is not None and running.share == 1 for running in self.running)

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

    def form(self, now: float, lane: int = 0) -> Formed[T]:
        """An engine thread is free: take the next batch out of the line.

        Args:
            now: The time.
            lane: Of the thread; what it ran before is over.
        """
        self.running[lane] = None
        line = self._line
        formed: Formed[T] = Formed([], [], [])
        if not line or self.is_wide or (self.max_queue_delay_s and self._should_linger(formed, now)):
            return formed
        limit, formed.share = self._next_batch()
        batch = formed.batch
        # Who cannot be answered in time any more is not run. For the first that must be certain, or a
        # wrong prediction would never be corrected.
        doomed_at = now + self.cost.best_s / formed.share
        while line and len(batch) < limit:
            instance, _ = line.popitem(last=False)
            if instance.is_abandoned:
                formed.abandoned.append(instance)
            elif instance.deadline <= doomed_at:
                formed.expired.append(instance)
            else:
                batch.append(instance)
                doomed_at = now + self.cost.predict_s(1) / formed.share
        if batch:
            self.running[lane] = Running(len(batch), now, formed.share)
            self._formed_at = now
        return formed

    def put_back(self, instances: list[T], lane: int) -> None:
        """Take the last of a batch back into the line, where they stood."""
        running = self.running[lane]
        if running is not None:
            self.running[lane] = replace(running, size=running.size - len(instances))
        in_order = sorted((*instances, *self._line), key=lambda instance: instance.enqueued_at)
        self._line = OrderedDict.fromkeys(in_order)

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
        ahead = self.in_use - self._in_engine + n
        if self.lanes == 1:
            inference_s = self._free_in(self.running[0], now) + self.cost.drain_s(ahead, self.batch_limit)
        else:
            inference_s = self._drain_lanes_s(ahead, now)
        return max(inference_s, self.pace.drain_s(self.decoding + n))

    def wait_s(self, now: float) -> float:
        """Seconds until the inference of an instance admitted now would begin."""
        limit = self.batch_limit
        inference_s = self._begins_in((self.in_use - self._in_engine) // limit, limit, now)
        return max(inference_s, self.pace.drain_s(self.decoding))

    def age_s(self, now: float) -> float:
        """Seconds the oldest waiting instance has waited."""
        oldest = next(iter(self._line), None)
        return 0.0 if oldest is None else max(0.0, now - oldest.enqueued_at)

    def is_stuck(self, now: float, timeout_s: float) -> bool:
        """Whether a running batch has taken longer than any batch may."""
        return any(running is not None and now - running.since > timeout_s for running in self.running)

    def refusal(self) -> RequestError:
        """Why nothing is admitted in this state."""
        if self.state is State.FAILED:
            return NotReady("the inference engine has stopped; the process must be restarted")
        return ShuttingDown("the model is being shut down; send the request elsewhere or again")

    @property
    def _in_engine(self) -> int:
        return sum(running.size for running in self.running if running is not None)

    def _free_in(self, running: Running | None, now: float) -> float:
        """Seconds until a lane is free."""
        if running is None:
            return 0.0
        return max(0.0, self.cost.predict_s(running.size) / running.share - (now - running.since))

    def _begins_in(self, batches: int, size: int, now: float) -> float:
        """Seconds until a batch begins that has so many of this size before it in the line."""
        free_in = [self._free_in(running, now) for running in self.running]
        if self.is_wide:
            free_in = [max(free_in)] * self.lanes
        rounds, lane = divmod(batches, self.lanes)
        return sorted(free_in)[lane] + rounds * self.lanes * self.cost.predict_s(size)

    def _drain_lanes_s(self, n: int, now: float) -> float:
        """Seconds until n instances are answered by lanes, after what they have."""
        if n < self.lanes and not any(self.running):
            return self.cost.predict_s(n)
        size = max(1, min(self.batch_limit, -(-n // self.lanes)))
        before = max(0, -(-n // size) - 1)
        return self._begins_in(before, size, now) + self.lanes * self.cost.predict_s(n - before * size)

    def _next_batch(self) -> tuple[int, float]:
        """The most instances of the next batch, and its share of the machine."""
        if self.lanes == 1:
            return self.batch_limit, 1.0
        waiting = len(self._line)
        if waiting < self.lanes and not any(self.running) and self._is_soon_decoded():
            return self.max_batch_size, 1.0
        return min(self.batch_limit, -(-waiting // self.lanes)), 1 / self.lanes

    def _is_soon_decoded(self) -> bool:
        """Whether one thread has at most one image to decode, if it takes all that wait."""
        return sum(instance.is_encoded for instance in self._line) <= 1

    def _should_linger(self, formed: Formed[T], now: float) -> bool:
        oldest = next(iter(self._line)).enqueued_at
        if (
            self.lanes > 1 and oldest <= self._formed_at
        ):  # its company has just left without it, for another lane
            return False
        until = oldest + self.max_queue_delay_s
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
