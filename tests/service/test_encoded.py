"""Images that wait as they are, and are decoded by the thread that runs their batch."""

from __future__ import annotations

import asyncio
import logging
import threading
import weakref
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.batcher import Batcher, Permit, Row
from service.batcher.batch import Batch, Load, Pixels, QueuedInstance
from service.errors import (
    DeadlineExceeded,
    InferenceFailed,
    InvalidInstance,
    NotReady,
    Reason,
    ShuttingDown,
    UndecodableImage,
)
from tests.service.fakes import (
    PATIENCE_S,
    SHAPE,
    FakeClock,
    GatedEngine,
    RecordingObserver,
    at_rest,
    identity_of,
    join_threads,
    pixels_of,
    until,
)


class Decoder:
    """Makes what decodes numbers, and notes which were decoded, and where.

    Attributes:
        clock: Of the batcher.
        seconds: That each takes.
        decoded: Numbers, in order.
        threads: That decoded them.
    """

    def __init__(self, clock: FakeClock) -> None:
        self.clock = clock
        self.seconds = 0.0
        self.decoded: list[int] = []
        self.threads: set[threading.Thread] = set()

    def good(self, identity: int) -> Load:
        return self._noting(identity, lambda: pixels_of(identity))

    def failing(self, identity: int, error: Exception) -> Load:
        def fail() -> Pixels:
            raise error

        return self._noting(identity, fail)

    def _noting(self, identity: int, result: Callable[[], Pixels]) -> Load:
        def load() -> Pixels:
            self.decoded.append(identity)
            self.threads.add(threading.current_thread())
            self.clock.advance(self.seconds)
            return result()

        return load


class Rig:
    """A batcher on one thread, and what it is fed with."""

    def __init__(self, kind: type[Batcher] = Batcher, **options: Any) -> None:
        self.engine = GatedEngine()
        self.clock = FakeClock()
        self.observer = RecordingObserver()
        self.decoder = Decoder(self.clock)
        self.batcher = kind(
            self.engine, input_shape=SHAPE, clock=self.clock, observer=self.observer, **options
        )

    def submit(self, *images: Pixels | Load, deadline: float | None = None) -> list[asyncio.Future[Row]]:
        """All of one request."""
        permit = self.batcher.admit(len(images), deadline)
        return [self.batcher.submit(permit, image) for image in images]

    async def occupied(self) -> asyncio.Future[Row]:
        """Have the engine hold a batch of one, so that all that come now run together."""
        self.engine.shut()
        (first,) = self.submit(pixels_of(1000))
        await self.engine.has_begun(1)
        return first


@asynccontextmanager
async def rig(kind: type[Batcher] = Batcher, **options: Any) -> AsyncIterator[Rig]:
    """One that sleeps, and ends with its thread gone."""
    made = Rig(kind, **options)
    async with at_rest(made.batcher, made.engine.open):
        yield made


async def outcomes(futures: list[asyncio.Future[Row]]) -> list[object]:
    """A number for a row, else the error."""
    async with asyncio.timeout(PATIENCE_S):
        ended = await asyncio.gather(*futures, return_exceptions=True)
    return [identity_of(end) if isinstance(end, Row) else end for end in ended]


async def test_it_is_decoded_by_the_thread_that_runs_it() -> None:
    async with rig() as it:
        assert await outcomes(it.submit(it.decoder.good(7))) == [7]
        assert it.decoder.threads == set(it.batcher._threads)


# What every image of a batch is: decoded before, good, bad, or in a way that nobody thought of.
kinds = st.lists(st.sampled_from(("pixels", "good", "bad", "odd", "broken")), min_size=1, max_size=12)


async def everybody_gets_his_own(kind: type[Batcher], images: list[str]) -> None:
    async with rig(kind, max_batch_size=5) as it:
        bad = UndecodableImage("no image")
        sources: dict[str, Callable[[int], Pixels | Load]] = {
            "pixels": pixels_of,
            "good": it.decoder.good,
            "bad": lambda identity: it.decoder.failing(identity, bad),
            "odd": lambda identity: lambda: np.zeros((1, 1, 1), np.uint8),
            "broken": lambda identity: it.decoder.failing(identity, ZeroDivisionError()),
        }
        first = await it.occupied()
        futures = it.submit(*(sources[image](identity) for identity, image in enumerate(images)))
        it.engine.open()
        ended = await outcomes([first, *futures])
        assert ended[0] == 1000
        for identity, (image, end) in enumerate(zip(images, ended[1:], strict=True)):
            if image in ("pixels", "good"):
                assert end == identity
            elif image == "bad":
                assert end is bad
            else:
                assert type(end) is (InvalidInstance if image == "odd" else InferenceFailed)
        running = [identity for identity, image in enumerate(images) if image in ("pixels", "good")]
        assert it.engine.ran == [1000, *running]
        assert sum(batch.size for batch in it.observer.finished) == 1 + len(running)
        assert it.observer.errors == {
            reason: count
            for reason, image in (
                (Reason.UNDECODABLE_IMAGE, "bad"),
                (Reason.INVALID_INSTANCE, "odd"),
                (Reason.INFERENCE_FAILED, "broken"),
            )
            if (count := images.count(image))
        }
        assert not it.observer.failed
        await until(lambda: not it.batcher.in_use)


@given(kinds)
@settings(deadline=None, max_examples=100, derandomize=True)
def test_a_bad_image_fails_alone_and_the_others_get_their_own_rows(images: list[str]) -> None:
    asyncio.run(everybody_gets_his_own(Batcher, images))


class RunsTheBad(Batcher):
    """An image that turned out bad stays in its batch."""

    def _decode(self, batch: Batch) -> None:
        super()._decode(batch)
        batch.members = batch.instances
        for instance, _ in batch.refused:
            instance.pixels = pixels_of(0)


class FailsTheBatch(Batcher):
    """A bad image fails its neighbours."""

    def _decode(self, batch: Batch) -> None:
        super()._decode(batch)
        if batch.refused:
            batch.refused = [(instance, batch.refused[0][1]) for instance in batch.instances]
            batch.members = []


class ForgetsTheBad(Batcher):
    """Nobody hears of a bad image."""

    def _refuse_image(self, instance: QueuedInstance, error: Exception) -> None:
        self._settle(1)


@pytest.mark.parametrize("mutant", [RunsTheBad, FailsTheBatch, ForgetsTheBad])
async def test_a_batcher_that_does_otherwise_is_noticed(
    mutant: type[Batcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tests.service.fakes.PATIENCE_S", 0.5)
    monkeypatch.setattr("tests.service.test_encoded.PATIENCE_S", 0.5)
    with pytest.raises((AssertionError, TimeoutError, ValueError)):
        await everybody_gets_his_own(mutant, ["good", "bad", "pixels"])


async def test_where_all_are_bad_the_engine_is_not_asked() -> None:
    async with rig() as it:
        ended = await outcomes(it.submit(*(it.decoder.failing(n, UndecodableImage("no")) for n in range(3))))
        assert all(isinstance(end, UndecodableImage) for end in ended)
        assert await outcomes(it.submit(it.decoder.good(1))) == [1]
        assert it.engine.ran == [1]


async def test_an_error_nobody_thought_of_is_logged(caplog: pytest.LogCaptureFixture) -> None:
    async with rig() as it:
        (end,) = await outcomes(it.submit(it.decoder.failing(0, ZeroDivisionError("the cause"))))
    assert isinstance(end, InferenceFailed)
    (record,) = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert record.exc_info is not None
    assert isinstance(record.exc_info[1], ZeroDivisionError)


async def test_what_nobody_wants_any_more_is_not_decoded() -> None:
    async with rig() as it:
        await it.occupied()
        (late,) = it.submit(it.decoder.good(1), deadline=it.clock() + 5)
        (wanted,) = it.submit(it.decoder.good(2))
        permit = it.batcher.admit(1)
        left = it.batcher.submit(permit, it.decoder.good(3))
        permit.close()
        it.clock.advance(6)
        it.engine.open()
        ended = await outcomes([late, wanted])
        assert isinstance(ended[0], DeadlineExceeded)
        assert ended[1] == 2
        assert left.cancelled()
        assert it.decoder.decoded == [2]


@pytest.mark.parametrize("is_good", [True, False])
async def test_whose_client_leaves_while_it_is_decoded_is_counted_there(is_good: bool) -> None:
    async with rig() as it:
        permit = it.batcher.admit(1)
        loop = asyncio.get_running_loop()

        def leave() -> Pixels:
            closed = threading.Event()
            loop.call_soon_threadsafe(permit.close)
            loop.call_soon_threadsafe(closed.set)
            assert closed.wait(PATIENCE_S)
            if is_good:
                return pixels_of(1)
            raise UndecodableImage("no image")

        it.batcher.submit(permit, leave)
        await until(lambda: not it.batcher.in_use)
        assert it.observer.cancelled == {"decode": 1}
        assert not it.observer.errors
        assert not it.engine.ran


async def test_once_its_deadline_has_passed_no_image_of_a_batch_is_decoded() -> None:
    async with rig() as it:
        first = await it.occupied()
        it.decoder.seconds = 0.02
        late = it.submit(*map(it.decoder.good, range(3)), deadline=it.clock() + 0.01)
        wanted = it.submit(it.decoder.good(3))
        it.engine.open()
        ended = await outcomes([first, *late, *wanted])
        assert [type(end) for end in ended[1:4]] == [DeadlineExceeded] * 3
        assert ended[4] == 3
        assert it.decoder.decoded == [0, 3]
        assert it.observer.errors == {Reason.DEADLINE_EXCEEDED: 3}


async def test_a_batch_that_takes_long_to_decode_goes_without_the_rest() -> None:
    async with rig() as it:
        await it.occupied()
        it.decoder.seconds = 0.03
        futures = it.submit(*map(it.decoder.good, range(3)), pixels_of(3), it.decoder.good(4), pixels_of(5))
        it.engine.open()
        assert await outcomes(futures) == list(range(6))
        assert it.engine.batches[:2] == [[1000], [0, 1]]
        assert it.engine.ran[1:] == list(range(6))
        assert it.decoder.decoded == [0, 1, 2, 4]
        await until(lambda: not it.batcher.in_use)


async def test_who_was_put_back_can_leave_and_the_others_are_answered_once() -> None:
    async with rig() as it:
        await it.occupied()
        permit = it.batcher.admit(2)
        loop, closed = asyncio.get_running_loop(), threading.Event()

        def leave() -> Pixels:
            it.clock.advance(0.1)
            loop.call_soon_threadsafe(permit.close)
            loop.call_soon_threadsafe(closed.set)
            assert closed.wait(PATIENCE_S)
            return pixels_of(1)

        (first,) = it.submit(it.decoder.good(0))
        for image in (leave, it.decoder.good(2)):
            it.batcher.submit(permit, image)
        (last,) = it.submit(it.decoder.good(3))
        it.engine.open()
        assert await outcomes([first, last]) == [0, 3]
        await until(lambda: not it.batcher.in_use)
        assert it.observer.cancelled == {"decode": 1, "queue": 1}
        assert it.decoder.decoded == [0, 3]


async def test_a_batch_that_is_failed_while_it_is_decoded_is_answered_once() -> None:
    async with rig() as it:
        await it.occupied()
        reached, gate = threading.Event(), threading.Event()

        def long() -> Pixels:
            reached.set()
            assert gate.wait(PATIENCE_S)
            it.clock.advance(0.1)
            return pixels_of(0)

        futures = it.submit(long, it.decoder.good(1))
        it.engine.open()
        await until(reached.is_set)
        await it.batcher.close(0.0)
        ended = await outcomes(futures)
        gate.set()
        join_threads(it.batcher)
        await asyncio.sleep(0)
        assert all(isinstance(end, ShuttingDown) for end in ended)
        assert not it.batcher.in_use
        assert not it.decoder.decoded


async def test_the_decoding_of_bad_images_is_not_taken_for_the_cost_of_the_good() -> None:
    async with rig() as it:
        await it.occupied()
        it.decoder.seconds = 0.01
        bad = (it.decoder.failing(number, UndecodableImage("no")) for number in range(3))
        futures = it.submit(*bad, it.decoder.good(3))
        it.clock.advance(0.01)
        it.engine.open()
        await outcomes(futures)
        await until(lambda: not it.batcher.in_use)
        assert it.batcher.cost.predict_s(1) == pytest.approx(0.01)


async def test_nobody_runs_whose_deadline_passes_while_others_of_the_batch_are_decoded() -> None:
    async with rig() as it:
        first = await it.occupied()
        it.decoder.seconds = 0.02
        deadline = it.clock() + 0.03
        early = it.submit(it.decoder.good(0), pixels_of(1), deadline=deadline)
        last = it.submit(it.decoder.good(2))
        it.engine.open()
        ended = await outcomes([first, *early, *last])
        assert [type(end) for end in ended[1:3]] == [DeadlineExceeded] * 2
        assert ended[3] == 2
        assert it.engine.ran == [1000, 2]


async def test_an_idle_batcher_holds_no_image() -> None:
    async with rig() as it:

        class Held:
            """Decodes nothing."""

            def __call__(self) -> Pixels:
                raise UndecodableImage("no")

        held = Held()
        gone = weakref.ref(held)
        futures = it.submit(held)
        await outcomes(futures)
        del held
        futures.clear()
        await until(lambda: gone() is None)


async def test_the_seconds_are_told_apart_and_decoding_is_learnt_with_the_engine() -> None:
    async with rig() as it:
        first = await it.occupied()
        it.decoder.seconds = 0.002
        futures = it.submit(it.decoder.good(1), pixels_of(2), it.decoder.good(3))
        it.clock.advance(0.010)
        it.engine.let_out()
        await first
        await it.engine.has_begun(2)
        it.clock.advance(0.003)
        it.engine.open()
        async with asyncio.timeout(PATIENCE_S):
            rows = await asyncio.gather(*futures)
        for row in rows:
            assert (row.queue_s, row.decode_s, row.inference_s) == pytest.approx((0.010, 0.004, 0.003))
            assert row.started == pytest.approx(it.clock() - 0.003)
        assert it.batcher.cost.best_s == pytest.approx(0.007)


async def test_closing_decodes_what_waits() -> None:
    async with rig() as it:
        first = await it.occupied()
        futures = it.submit(*map(it.decoder.good, range(3)))
        closing = asyncio.create_task(it.batcher.close(PATIENCE_S))
        await asyncio.sleep(0)
        it.engine.open()
        await closing
        assert await outcomes([first, *futures]) == [1000, 0, 1, 2]


async def test_after_the_grace_nothing_is_decoded() -> None:
    async with rig() as it:
        first = await it.occupied()
        futures = it.submit(it.decoder.good(1))
        await it.batcher.close(0.0)
        ended = await outcomes([first, *futures])
        assert all(isinstance(end, ShuttingDown) for end in ended)
        it.engine.open()
        join_threads(it.batcher)
        assert not it.decoder.decoded


async def test_a_decoder_that_hangs_is_a_hang_of_the_engine() -> None:
    async with rig() as it:
        reached, gate = threading.Event(), threading.Event()

        def hang() -> Pixels:
            reached.set()
            assert gate.wait(PATIENCE_S)
            return pixels_of(1)

        future, behind = it.submit(hang), it.submit(pixels_of(2))
        await until(reached.is_set)
        it.clock.advance(31.0)
        it.batcher.check()
        ended = await outcomes(future + behind)
        assert all(isinstance(end, InferenceFailed) for end in ended)
        with pytest.raises(NotReady):
            it.batcher.admit(1)
        gate.set()


async def test_a_slot_is_used_by_an_image_that_is_not_decoded_yet() -> None:
    async with rig() as it:
        permit: Permit = it.batcher.admit(1)
        future = it.batcher.submit(permit, it.decoder.good(1))
        with pytest.raises(ValueError, match="every slot"):
            it.batcher.submit(permit, it.decoder.good(2))
        assert await outcomes([future]) == [1]
