"""The shell around `service.batcher.waiting`: the event loop's side, and the engine's threads.

An engine thread takes batches out of the line itself, at the last moment, so it is never idle while
somebody waits and never runs a batch that was formed too early. It wakes the event loop once a
batch. The event loop wakes it only when it sleeps, and at the end of the loop's turn, so that
requests that arrived together run together. There is one such thread for each lane of the engine.

Two wake-ups take longer than a very small network. A lone instance of one is run on the event loop itself, if
somebody outside replaces a process whose event loop hangs.
"""

from __future__ import annotations

import asyncio
import logging
import math
import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Literal, Self

import numpy as np

from service.batcher.batch import Batch, FinishedBatch, Lanes, Load, Pixels, QueuedInstance, Row, Run
from service.batcher.cost import CostModel
from service.batcher.handover import HandOver
from service.batcher.observer import Observer, Unobserved
from service.batcher.waiting import BatchQueue, Formed, State
from service.errors import DeadlineExceeded, EngineLost, InferenceFailed, InvalidInstance, RequestError

logger = logging.getLogger(__name__)

# How often the engine is checked for a hang and the line for passed deadlines, while there is work.
_TICK_S = 0.1
# A lone instance that takes less is answered sooner without two wake-ups.
_QUICK_S = 1e-4
# Members of a batch wait this long, and for one image more, for each other to be decoded.
_DECODE_S = 0.05
# One that runs, and one that is there when it ends.
_SHORT_LINE_BATCHES = 2
# A lone instance is not copied.
_NO_BUFFER = np.empty(0, np.uint8)


class Permit:
    """n admitted slots of one request. Leaving its ``with`` block gives back what is unused.

    If the block is left early (the client went away), instances still waiting leave the line.

    Attributes:
        slots: Admitted and neither submitted nor released yet.
        deadline: On the clock of ``loop.time()``; ``inf`` where there is none.
        answer_at: When the answer is predicted to come, on the same clock.
    """

    __slots__ = ("_batcher", "_instances", "answer_at", "deadline", "slots")

    def __init__(self, batcher: Batcher, slots: int, deadline: float, answer_at: float) -> None:
        self._batcher = batcher
        self._instances: list[QueuedInstance] = []
        self.slots = slots
        self.deadline = deadline
        self.answer_at = answer_at

    def release(self, n: int = 1) -> None:
        """Give back n slots that will not be submitted (the image turned out bad)."""
        if not 0 <= n <= self.slots:
            raise ValueError(f"cannot release {n} of {self.slots} slots")
        self.slots -= n
        self._batcher._release(n)

    def close(self) -> None:
        """Give back all unused slots and abandon what is not answered. Harmless when repeated."""
        if self.slots:
            self._batcher._withdraw(self.slots)
            self.slots = 0
        for instance in self._instances:
            if not instance.future.done():
                instance.future.cancel()
            if instance.future.cancelled():
                self._batcher._abandon(instance)
        self._instances.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class Batcher:
    """Runs admitted instances in batches on threads of its own. Made on a running event loop.

    All methods are for the event loop's thread. Deadlines are on the clock of ``loop.time()``.

    Args:
        run: The engine, on all cores; see `service.batcher.batch.Run`. Called by one thread at a time.
        input_shape: (H, W, C) of one instance.
        max_batch_size: Most instances in one batch.
        max_queue_size: Most instances admitted and unanswered.
        max_queue_delay_s: How long an idle engine waits for company of the oldest waiting instance.
        inference_timeout_s: A batch that takes longer is a hang; the batcher then fails for good.
        lanes: How the engine runs a batch on each core; None: it has but one.
        is_watched: Whether this process is replaced when its event loop hangs. Then quick lone instances
            are run there; without it, an engine that hangs must not keep the event loop from saying so.
        name: For the threads, the log and the repr.
        cost: What is known of the engine's speed (from its warm-up); learns on.
        observer: Told of batches and drops.
        clock: Seconds, on the clock of ``loop.time()``.
    """

    def __init__(
        self,
        run: Run,
        *,
        input_shape: tuple[int, int, int],
        max_batch_size: int = 64,
        max_queue_size: int = 1024,
        max_queue_delay_s: float = 0.0,
        inference_timeout_s: float = 30.0,
        lanes: Lanes | None = None,
        is_watched: bool = False,
        name: str = "model",
        cost: CostModel | None = None,
        observer: Observer | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.name = name
        self.input_shape = input_shape
        self._run = run
        self._run_in_lane = lanes.run if lanes is not None else run
        # Nobody lingers on the event loop, and several lanes are not for very small networks.
        self._may_use_loop = is_watched and lanes is None and not max_queue_delay_s
        self._timeout_s = inference_timeout_s
        self._observer = observer or Unobserved()
        self._clock = clock
        self._loop = asyncio.get_running_loop()
        self._queue: BatchQueue[QueuedInstance] = BatchQueue(
            max_batch_size=max_batch_size,
            max_queue_size=max_queue_size,
            max_queue_delay_s=max_queue_delay_s,
            cost=cost or CostModel(),
            lanes=lanes.count if lanes is not None else 1,
        )
        self._handover = HandOver(self._queue, clock)
        self._tick_timer: asyncio.TimerHandle | None = None
        self._drained = asyncio.Event()
        self._threads_ended = asyncio.Event()
        self._threads = [
            threading.Thread(target=self._serve, args=(lane,), name=f"engine {name}", daemon=True)
            for lane in range(self._queue.lanes)
        ]
        self._running_threads = len(self._threads)
        try:
            for thread in self._threads:
                thread.start()
        except RuntimeError:  # the system has no thread left
            self._handover.stop()
            raise

    def __repr__(self) -> str:
        return f"<Batcher {self.name} {self._queue!r}>"

    @property
    def state(self) -> State:
        """Where it is in its life."""
        return self._queue.state

    @property
    def is_ready(self) -> bool:
        """Whether it takes new work."""
        return self._queue.state is State.OPEN

    @property
    def is_alive(self) -> bool:
        """False once an engine thread died or hung: the process must be restarted."""
        return self._queue.state is not State.FAILED

    @property
    def is_idle(self) -> bool:
        """Whether the engine sleeps until somebody comes."""
        return self._handover.is_idle

    @property
    def takes_encoded(self) -> bool:
        """Whether what is admitted now is better decoded by the thread that runs it."""
        return self._queue.takes_encoded

    @property
    def depth(self) -> int:
        """Instances waiting for a batch."""
        return len(self._queue)

    @property
    def in_use(self) -> int:
        """Instances admitted and unanswered; at most `capacity`."""
        return self._queue.in_use

    @property
    def capacity(self) -> int:
        """``max_queue_size``."""
        return self._queue.max_queue_size

    @property
    def max_batch_size(self) -> int:
        """Most instances in one batch."""
        return self._queue.max_batch_size

    @property
    def predicted_wait_s(self) -> float:
        """Seconds until the inference of an instance admitted now would begin."""
        return self._queue.wait_s(self._clock())

    @property
    def queue_age_s(self) -> float:
        """Seconds the oldest waiting instance has waited."""
        return self._handover.age_s()

    @property
    def cost(self) -> CostModel:
        """The learnt duration of a batch."""
        return self._queue.cost

    def admit(self, n: int, deadline: float | None = None) -> Permit:
        """Take n slots at once, or none.

        Args:
            n: Instances; ≥ 1.
            deadline: From when on the answer is worth nothing, on the clock of ``loop.time()``.

        Raises:
            Overloaded: Too few free slots, or the answer would come after the deadline.
            DeadlineExceeded: The deadline has passed already.
            TooManyImages: n exceeds ``max_queue_size``.
            ShuttingDown: The batcher is closing or closed.
            NotReady: An engine thread died or hung.
        """
        if n < 1:
            raise ValueError(f"cannot admit {n} instances")
        limit = math.inf if deadline is None else deadline
        return Permit(self, n, limit, self._queue.admit(n, limit, self._clock()))

    def foresee(self, n: int, deadline: float) -> None:
        """Raise what `admit` would raise now if the line were short; take nothing.

        Two batches keep a lane of the engine busy. Where more is asked for than can be answered, a longer
        line brings no answer more, and everybody waits for it.
        """
        places = _SHORT_LINE_BATCHES * self.max_batch_size * self._queue.lanes
        self._queue.foresee(n, deadline, self._clock(), places)

    def submit(self, permit: Permit, image: Pixels | Load) -> asyncio.Future[Row]:
        """Put one image in the line, against one of the permit's slots.

        The future ends with its row, or with `InferenceFailed`, `DeadlineExceeded` or `ShuttingDown`; or
        with what ``image`` raises. Cancelling it is how a client leaves.

        Args:
            permit: With at least one slot left.
            image: uint8 [H, W, C]; kept until its batch runs, not modified. Or what decodes it, then.

        Raises:
            InvalidInstance: Pixels of another shape or dtype; the slot is kept.
        """
        if isinstance(image, np.ndarray):
            self._check_pixels(image)
        if not permit.slots:
            raise ValueError("every slot of this permit is used")
        permit.slots -= 1
        future = self._loop.create_future()
        answer_at = None if permit.slots else permit.answer_at
        instance = QueuedInstance(image, future, self._clock(), permit.deadline, answer_at)
        permit._instances.append(instance)
        if self._handover.submit(instance):
            self._loop.call_soon(self._begin)
        if self._tick_timer is None:
            self._tick_timer = self._loop.call_later(_TICK_S, self._tick)
        if self._handover.is_stopped:
            self._fail_line()
        return future

    async def close(self, grace_s: float) -> None:
        """Refuse new work, finish what was admitted within ``grace_s``, fail the rest, end the threads."""
        deadline = self._loop.time() + grace_s
        if self._queue.state is State.OPEN:
            self._queue.state = State.DRAINING
            self._handover.wake_all()  # no more lingering
        self._notice_drained()
        await _wait_until(self._drained, deadline)
        if self._queue.state is State.DRAINING:
            self._queue.state = State.CLOSED
        self._stop()
        if self.is_alive:  # who hangs is not waited for
            await _wait_until(self._threads_ended, deadline)

    def check(self) -> None:
        """Fail for good if the engine hangs; drop what has passed its deadline.

        Called by itself while there is work.
        """
        now = self._clock()
        if self._queue.is_stuck(now, self._timeout_s):
            self._fail(f"no result after {self._timeout_s:g} s")
        elif not (self._handover.is_stopped or all(thread.is_alive() for thread in self._threads)):
            self._fail("its thread is gone")
        self._drop_expired(self._handover.expire(now))

    # The event loop's side.

    def _begin(self) -> None:
        """The loop's turn is over: have those who came in it run."""
        is_quick = self._may_use_loop and 0.0 < self._queue.cost.predict_s(1) < _QUICK_S
        taken = self._handover.take_lone() if is_quick else None
        if taken is None:
            self._handover.wake()
        else:
            self._run_here(*taken)

    def _run_here(self, batch: Batch | None, formed: Formed[QueuedInstance]) -> None:
        try:
            self._drop(formed)
            if batch is not None:
                self._infer(batch, _NO_BUFFER)
                self._answer(batch)
        except EngineLost as error:
            self._fail(error.detail)
        except BaseException as error:  # whatever it is, the waiters must hear of it
            self._fail(f"it died of {error!r}")
        self._handover.end_lone()

    def _tick(self) -> None:
        self._tick_timer = None
        self.check()
        if self._queue.in_use and not self._handover.is_stopped:
            self._tick_timer = self._loop.call_later(_TICK_S, self._tick)

    def _release(self, n: int) -> None:
        self._queue.release(n, self._clock())
        self._notice_drained()

    def _withdraw(self, n: int) -> None:
        self._queue.withdraw(n)
        self._notice_drained()

    def _abandon(self, instance: QueuedInstance) -> None:
        if self._handover.abandon(instance):
            self._observer.instances_cancelled("queue", 1)
            self._settle(1)

    def _settle(self, n: int) -> None:
        self._queue.settle(n)
        self._notice_drained()

    def _notice_drained(self) -> None:
        if not self._queue.in_use and self._queue.state is not State.OPEN:
            self._drained.set()

    def _drop(self, formed: Formed[QueuedInstance]) -> None:
        if formed.abandoned:
            self._observer.instances_cancelled("queue", len(formed.abandoned))
            self._settle(len(formed.abandoned))
        self._drop_expired(formed.expired)

    def _drop_expired(self, expired: list[QueuedInstance]) -> None:
        if expired:
            self._refuse(
                expired, "queue", lambda: DeadlineExceeded("the deadline passed before inference began")
            )

    def _refuse(
        self,
        instances: list[QueuedInstance],
        stage: Literal["queue", "decode", "inference"],
        error: Callable[[], RequestError],
        cause: BaseException | None = None,
    ) -> None:
        """Fail every instance whose client is still there, and give back the slots of all."""
        failed: list[RequestError] = []
        for instance in instances:
            if not instance.future.cancelled():
                failed.append(error())
                failed[-1].__cause__ = cause
                instance.future.set_exception(failed[-1])
                instance.future.exception()  # a client that leaves now is no "exception never retrieved"
        self._settle(len(instances))
        if failed:
            self._observer.instances_failed(failed[0].reason, len(failed))
        if len(failed) < len(instances):
            self._observer.instances_cancelled(stage, len(instances) - len(failed))

    def _answer(self, batch: Batch) -> None:
        """The wake-up: give every member of a batch its row, or its error."""
        if not self._handover.answer(batch):  # failed in the meantime, by a hang or the end of the grace
            return
        for instance, error in batch.refused:
            self._refuse_image(instance, error)
        if batch.members:
            self._answer_members(batch)

    def _refuse_image(self, instance: QueuedInstance, error: RequestError) -> None:
        self._refuse([instance], "decode", lambda: error, error.__cause__)

    def _answer_members(self, batch: Batch) -> None:
        if batch.result is None:
            self._fail_batch(batch)
            return
        result = batch.result
        self._learn(batch, result)
        for index, (instance, queue_s) in enumerate(zip(batch.members, result.queue_s, strict=True)):
            if instance.future.cancelled():
                result.left += 1
            else:
                instance.future.set_result(Row(result, index, queue_s))
        self._settle(result.size)
        if result.left:
            self._observer.instances_cancelled("inference", result.left)
        self._observer.batch_finished(result)

    def _learn(self, batch: Batch, result: FinishedBatch) -> None:
        if batch.share < 1 or self._queue.lanes == 1:  # one line for both ways would be that of neither
            own_decode_s = result.decode_s * result.size / (result.size + len(batch.refused))
            self._queue.cost.learn(result.size, (own_decode_s + result.inference_s) * batch.share)
        answer_at = batch.members[-1].answer_at
        if answer_at is not None:
            self._queue.lateness.learn(self._clock() - answer_at)

    def _fail_batch(self, batch: Batch) -> None:
        size = len(batch.members)
        cause, batch.error = batch.error, None  # its traceback leads back to the batch
        logger.error("%s: a batch of %d failed", self.name, size, exc_info=cause)
        self._refuse(
            batch.members, "inference", lambda: InferenceFailed("the model failed on this batch"), cause
        )
        self._observer.batch_failed(size)

    def _fail(self, cause: str) -> None:
        """The engine is lost: everyone waiting fails, nothing is admitted any more."""
        if not self.is_alive:
            return
        logger.critical("%s: the engine is lost: %s", self.name, cause)
        self._queue.state = State.FAILED
        self._stop()

    def _stop(self) -> None:
        """End the thread when it next looks, and fail all that is unanswered."""
        unanswered = self._handover.stop()
        if self._tick_timer is not None:
            self._tick_timer.cancel()
            self._tick_timer = None
        self._fail_line()
        for batch in unanswered:
            self._refuse(batch.instances, "inference", self._last_error)
            if not self.is_alive:
                self._observer.batch_failed(len(batch.instances))

    def _fail_line(self) -> None:
        self._refuse(self._handover.empty(), "queue", self._last_error)

    def _last_error(self) -> RequestError:
        return self._queue.refusal() if self.is_alive else InferenceFailed("the inference engine has stopped")

    def _thread_ended(self) -> None:
        self._running_threads -= 1
        if not self._running_threads:
            self._threads_ended.set()

    # The engine threads' side.

    def _serve(self, lane: int) -> None:
        cause = None
        try:
            # Batches in lanes are short, but what is never touched of a buffer costs nothing.
            buffer = np.empty((self._queue.max_batch_size, *self.input_shape), np.uint8)
            while (taken := self._handover.take(lane)) is not None:
                self._process(*taken, buffer)
                taken = None  # who sleeps holds nobody's images
        except EngineLost as error:
            cause = error.detail
        except BaseException as error:  # whatever it is, the waiters must hear of it
            cause = f"its thread died of {error!r}"
        if cause is not None:
            self._post(self._fail, cause)
        self._post(self._thread_ended)

    def _process(self, batch: Batch | None, formed: Formed[QueuedInstance], buffer: Pixels) -> None:
        if formed.expired or formed.abandoned:
            self._post(self._drop, formed)
        if batch is not None:
            self._infer(batch, buffer)
            self._post(self._answer, batch)

    def _infer(self, batch: Batch, buffer: Pixels) -> None:
        run = self._run if batch.share == 1 else self._run_in_lane
        self._decode(batch)
        if not batch.members:
            return
        started = batch.started + batch.decode_s
        try:
            logits, probabilities = run(self._gather(batch.members, buffer))
            if not len(logits) == len(probabilities) == len(batch.members):
                raise ValueError(f"{len(logits)} rows for a batch of {len(batch.members)}")
        except EngineLost:  # the thread ends of it, and everybody hears
            raise
        except Exception as error:  # the engine's failure is its batch's, whatever it is
            batch.error = error
            return
        queue_s = [batch.started - instance.enqueued_at for instance in batch.members]
        inference_s = self._clock() - started
        batch.result = FinishedBatch(logits, probabilities, inference_s, queue_s, started, batch.decode_s)

    def _decode(self, batch: Batch) -> None:
        """Decode the members that are not yet; part with those that cannot run, and with those too many."""
        encoded = [(index, member.load) for index, member in enumerate(batch.instances) if member.load]
        if not encoded:
            return
        for index, load in encoded:
            if index and self._clock() - batch.started > _DECODE_S:
                self._handover.put_back(batch, index)
                break
            self._decode_one(batch, batch.instances[index], load)
        refused = {instance for instance, _ in batch.refused}
        for instance in batch.members:  # it took a while
            if instance not in refused and not self._is_wanted(instance):
                error = DeadlineExceeded("the deadline passed before inference began")
                batch.refused.append((instance, error))
                refused.add(instance)
        batch.members = [instance for instance in batch.members if instance not in refused]
        batch.decode_s = self._clock() - batch.started

    def _decode_one(self, batch: Batch, instance: QueuedInstance, load: Load) -> None:
        instance.load = None
        if not self._is_wanted(instance):
            return
        try:
            instance.pixels = load()
            self._check_pixels(instance.pixels)
        except RequestError as error:
            batch.refused.append((instance, error.without_frames()))
        except Exception as error:  # a fault in decoding is that of one image, whatever it is
            logger.exception("%s: decoding an image failed", self.name)
            failure = InferenceFailed("decoding this image failed")
            failure.__cause__ = error
            batch.refused.append((instance, failure.without_frames()))

    def _is_wanted(self, instance: QueuedInstance) -> bool:
        return instance.deadline > self._clock() and not instance.is_abandoned

    def _gather(self, members: list[QueuedInstance], buffer: Pixels) -> Pixels:
        """uint8 [N, H, W, C]: the members' pixels in order; a lone one is not copied."""
        if len(members) == 1:
            return members[0].pixels[np.newaxis]
        for index, instance in enumerate(members):
            buffer[index] = instance.pixels
        return buffer[: len(members)]

    def _check_pixels(self, pixels: Pixels) -> None:
        if pixels.shape != self.input_shape or pixels.dtype != np.uint8:
            raise InvalidInstance(
                f"expected uint8 {list(self.input_shape)}, got {pixels.dtype} {list(pixels.shape)}"
            )

    def _post(self, callback: Callable[..., None], *arguments: object) -> None:
        try:
            self._loop.call_soon_threadsafe(callback, *arguments)
        except RuntimeError:  # the loop is closed: nobody is left to be told
            self._handover.stop()


async def _wait_until(event: asyncio.Event, deadline: float) -> None:
    """Wait for the event, but not beyond the deadline."""
    try:
        async with asyncio.timeout_at(deadline):
            await event.wait()
    except TimeoutError:
        return
