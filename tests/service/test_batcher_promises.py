"""The batcher's nine promises, one property each, and mutants of the batcher that must break them.

Every promise is a function of the batcher's class and a script drawn by hypothesis, run on a real
event loop with a real engine thread, a fake engine with a gate and a clock that only tests move.
"""

from __future__ import annotations

import asyncio
import logging
import math
from collections.abc import AsyncIterator, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any, TypeAlias

import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from hypothesis.strategies import SearchStrategy

from service.batcher import Batcher, CostModel, Permit, Row, State
from service.errors import (
    NotReady,
    Overloaded,
    Reason,
    RequestError,
    ShuttingDown,
)
from tests.service import mutants
from tests.service.fakes import (
    PATIENCE_S,
    SHAPE,
    FakeClock,
    GatedEngine,
    RecordingObserver,
    identity_of,
    join_threads,
    pixels_of,
    until,
)

MAX_BATCH = 4
MAX_QUEUE = 12
TIMEOUT_S = 30.0
Outcome: TypeAlias = int | str


class World:
    """A batcher, its engine and clock, and what its clients got."""

    def __init__(self, kind: type[Batcher], **options: Any) -> None:
        self.clock = FakeClock()
        self.engine = GatedEngine()
        self.observer = RecordingObserver()
        self.futures: dict[int, asyncio.Future[Row]] = {}
        self.permits: dict[int, Permit] = {}
        arguments: dict[str, Any] = {
            "input_shape": SHAPE,
            "max_batch_size": MAX_BATCH,
            "max_queue_size": MAX_QUEUE,
            "inference_timeout_s": TIMEOUT_S,
            "observer": self.observer,
            "clock": self.clock,
        }
        self.batcher = kind(self.engine, **(arguments | options))

    def send(self, identity: int, lifetime_s: float = math.inf) -> asyncio.Future[Row]:
        """A request of one instance, decoded at once."""
        permit = self.batcher.admit(1, self.clock() + lifetime_s)
        future = self.batcher.submit(permit, pixels_of(identity))
        self.permits[identity] = permit
        self.futures[identity] = future
        return future

    def leave(self, identity: int) -> None:
        """The client of this instance goes away."""
        self.permits[identity].close()

    async def run_one(self) -> None:
        """Let the running batch out, if there is one, and the next one in, if anybody waits."""
        begun = len(self.engine.batches)
        if begun:
            self.engine.let_out()
        if self.batcher.depth:
            await self.engine.has_begun(begun + 1)

    async def outcomes(self) -> dict[int, Outcome]:
        """How every future ended: the number in its row, "cancelled", or its error's reason."""
        async with asyncio.timeout(PATIENCE_S):
            await asyncio.wait(self.futures.values())
        return {identity: _outcome(future) for identity, future in self.futures.items()}

    async def settled(self) -> None:
        """Wait until the event loop has heard of every batch that came out."""
        await until(lambda: not self.batcher.in_use)


def _outcome(future: asyncio.Future[Row]) -> Outcome:
    if future.cancelled():
        return "cancelled"
    error = future.exception()
    if error is not None:
        assert isinstance(error, RequestError)
        return error.reason.value
    return identity_of(future.result())


@asynccontextmanager
async def world(kind: type[Batcher], **options: Any) -> AsyncIterator[World]:
    """A world that ends with every thread gone, and in which nothing fails behind the scenes."""
    faults: list[dict[str, Any]] = []
    asyncio.get_running_loop().set_exception_handler(lambda _, context: faults.append(context))
    made = World(kind, **options)
    try:
        await until(lambda: made.batcher.is_idle)
        yield made
    finally:
        made.engine.open()
        await made.batcher.close(0)
        for thread in made.batcher._threads:
            thread.join(PATIENCE_S)
    await asyncio.sleep(0)
    assert not faults


# The promises. Each script is drawn by the strategy beside it.

Promise: TypeAlias = Callable[[type[Batcher], Any], Coroutine[Any, Any, None]]

steps = st.lists(
    st.one_of(
        st.tuples(st.just("admit"), st.integers(1, 5)),
        st.tuples(st.just("submit"), st.integers(0, 9)),
        st.tuples(st.just("release"), st.integers(0, 9)),
        st.tuples(st.just("leave"), st.integers(0, 9)),
        st.tuples(st.just("run"), st.just(0)),
    ),
    min_size=1,
    max_size=40,
)


class Clients:
    """What promise 1's script does: permits, and the futures submitted against each."""

    def __init__(self, batcher: Batcher) -> None:
        self.batcher = batcher
        self.permits: list[tuple[Permit, list[asyncio.Future[Row]]]] = []

    @property
    def unanswered(self) -> int:
        """Counted from outside: unused slots and futures without an answer."""
        return sum(permit.slots + sum(not f.done() for f in futures) for permit, futures in self.permits)

    def admit(self, n: int) -> None:
        before, in_use = self.unanswered, self.batcher.in_use
        try:
            self.permits.append((self.batcher.admit(n), []))
        except Overloaded:
            assert in_use + n > MAX_QUEUE
            assert self.unanswered == before
            assert self.batcher.in_use == in_use

    def submit(self, which: int) -> None:
        permit, futures = self.permits[which % len(self.permits)]
        if permit.slots:
            futures.append(self.batcher.submit(permit, pixels_of(which)))

    def release(self, which: int) -> None:
        permit, _ = self.permits[which % len(self.permits)]
        if permit.slots:
            permit.release()

    def leave(self, which: int) -> None:
        permit, _ = self.permits[which % len(self.permits)]
        in_use, unused = self.batcher.in_use, permit.slots + self.batcher.depth
        permit.close()
        assert self.batcher.in_use == in_use - (unused - self.batcher.depth)


async def promise_1(kind: type[Batcher], script: list[tuple[str, int]]) -> None:
    """At most ``max_queue_size`` admitted and unanswered; all or nothing; slots come back."""
    async with world(kind) as w:
        w.engine.shut()
        clients = Clients(w.batcher)
        for step, argument in script:
            if step == "run":
                await w.run_one()
            elif step == "admit" or clients.permits:
                getattr(clients, step)(argument)
            assert clients.unanswered <= w.batcher.in_use <= MAX_QUEUE
        w.engine.open()
        for permit, _ in clients.permits:
            permit.release(permit.slots)
        await w.settled()
        assert clients.unanswered == 0


async def promise_2(kind: type[Batcher], script: list[int]) -> None:
    """Pull: a batch takes everybody who came while the one before it ran; an idle engine takes the first."""
    async with world(kind, max_queue_size=1000) as w:
        w.engine.shut()
        sent = 0
        for arrivals in script:
            expected = min(MAX_BATCH, w.batcher.depth + arrivals)
            for _ in range(arrivals):
                w.send(sent)
                sent += 1
            await w.run_one()
            assert len(w.engine.batches[-1]) == expected


async def promise_3(kind: type[Batcher], script: list[int]) -> None:
    """First come, first served; 1 ≤ batch size ≤ ``max_batch_size``."""
    async with world(kind, max_queue_size=1000) as w:
        w.engine.shut()
        sent = 0
        for arrivals in script:
            for _ in range(arrivals):
                w.send(sent)
                sent += 1
            await w.engine.has_begun(1)
            w.engine.let_out()
        w.engine.open()
        await w.outcomes()
        assert w.engine.ran == list(range(sent))
        assert all(1 <= len(batch) <= MAX_BATCH for batch in w.engine.batches)


Fate: TypeAlias = tuple[bool, float]
fates = st.lists(st.tuples(st.booleans(), st.sampled_from([1.0, 5.0, 9.0, math.inf])), max_size=8)


async def promise_4(kind: type[Batcher], script: tuple[list[Fate], float, bool]) -> None:
    """Whose client left or whose deadline passed does not run, and is counted."""
    waiting, passed_s, is_swept = script
    cost = CostModel()
    cost.learn(1, 1e-6)  # so fast that nobody's deadline is too near to try
    async with world(kind, cost=cost) as w:
        w.engine.shut()
        w.send(99)
        await w.engine.has_begun(1)
        for identity, (_, lifetime_s) in enumerate(waiting):
            w.send(identity, lifetime_s)
        left = [identity for identity, (leaves, _) in enumerate(waiting) if leaves]
        for identity in left:
            if identity % 2:
                w.leave(identity)
            else:
                w.futures[identity].cancel()
        w.clock.advance(passed_s)
        if is_swept:
            w.batcher.check()
        w.engine.open()
        outcomes = await w.outcomes()
        await w.settled()
        late = [i for i, (leaves, life) in enumerate(waiting) if not leaves and life <= passed_s]
        stayed = [i for i in range(len(waiting)) if i not in left and i not in late]
        assert w.engine.ran == [99, *stayed]
        assert all(outcomes[identity] == "deadline_exceeded" for identity in late)
        assert all(outcomes[identity] == identity for identity in stayed)
        assert w.observer.cancelled["queue"] == len(left)
        assert w.observer.errors[Reason.DEADLINE_EXCEEDED] == len(late)
        assert w.batcher.in_use == 0


async def promise_5(kind: type[Batcher], script: list[tuple[int, bool]]) -> None:
    """Every future ends exactly once, with its own row; those that left while running, too."""
    async with world(kind) as w:
        w.engine.shut()
        sent: list[int] = []
        for position, (identity, leaves) in enumerate(script):
            w.send(identity)
            if position == 0:
                await w.engine.has_begun(1)
            if leaves:
                w.futures[identity].cancel()
            sent.append(identity)
        w.engine.open()
        outcomes = await w.outcomes()
        await w.settled()
        assert outcomes == {identity: "cancelled" if leaves else identity for identity, leaves in script}
        assert w.observer.cancelled.total() == sum(leaves for _, leaves in script)


async def promise_6(kind: type[Batcher], script: tuple[list[int], frozenset[int]]) -> None:
    """A failing batch fails its own members only, and the next one runs."""
    arrivals, poison = script
    async with world(kind, max_queue_size=1000) as w:
        w.engine.poison = poison
        w.engine.shut()
        sent = 0
        for count in arrivals:
            for _ in range(count):
                w.send(sent)
                sent += 1
            await w.run_one()
            await until(lambda: all(w.futures[i].done() for batch in w.engine.batches[:-1] for i in batch))
        w.engine.open()
        outcomes = await w.outcomes()
        failed = {i for batch in w.engine.batches if not poison.isdisjoint(batch) for i in batch}
        assert outcomes == {i: "inference_failed" if i in failed else i for i in range(sent)}
        assert w.engine.ran == list(range(sent))
        await w.settled()
        assert sum(w.observer.failed) == w.observer.errors[Reason.INFERENCE_FAILED] == len(failed)
        assert w.batcher.is_ready


async def promise_7(kind: type[Batcher], script: tuple[int, int, int, int, float]) -> None:
    """Work that cannot meet its deadline is refused with its wait; decoding counts like waiting."""
    waiting, decoding, n, run_ms, lifetime_s = script
    cost = CostModel()
    for size in (1, 2, 4) * 30:
        cost.learn(size, 1.0 + 0.5 * size)
    async with world(kind, cost=cost, max_queue_size=1000) as w:
        w.engine.shut()
        w.send(0)
        await w.engine.has_begun(1)
        for identity in range(1, waiting + 1):
            w.send(identity)
        if decoding:
            w.batcher.admit(decoding)
        w.clock.advance(run_ms / 1e3)
        ahead = waiting + decoding + n
        full, rest = divmod(ahead, MAX_BATCH)
        answer_s = max(0.0, 1.5 - run_ms / 1e3) + full * 3.0 + (1.0 + 0.5 * rest if rest else 0.0)
        if lifetime_s >= answer_s + 1e-6:
            w.batcher.admit(n, w.clock() + lifetime_s)
        elif lifetime_s <= answer_s - 1e-6:
            with pytest.raises(Overloaded) as refusal:
                w.batcher.admit(n, w.clock() + lifetime_s)
            assert refusal.value.retry_after_s == pytest.approx(answer_s)
            assert w.batcher.in_use == 1 + waiting + decoding


async def promise_8(kind: type[Batcher], script: tuple[int, int, bool]) -> None:
    """Close refuses new work, finishes the old within the grace, and fails the rest."""
    sent, decoding, is_slow = script
    async with world(kind) as w:
        if is_slow:
            w.engine.shut()
        for identity in range(sent):
            w.send(identity)
        permit = w.batcher.admit(decoding) if decoding else None
        closing = asyncio.create_task(w.batcher.close(0 if is_slow else PATIENCE_S))
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDown):
            w.batcher.admit(1)
        if permit is not None and is_slow:
            await closing
        if permit is not None:
            for identity in range(100, 100 + decoding):
                w.futures[identity] = w.batcher.submit(permit, pixels_of(identity))
        async with asyncio.timeout(PATIENCE_S):
            await closing
        outcomes = await w.outcomes() if w.futures else {}
        assert outcomes == {identity: "shutting_down" if is_slow else identity for identity in outcomes}
        assert w.batcher.state is State.CLOSED
        assert w.batcher.in_use == 0
        assert w.observer.errors[Reason.SHUTTING_DOWN] == (len(outcomes) if is_slow else 0)
        w.engine.open()
        join_threads(w.batcher)


async def promise_9(kind: type[Batcher], script: tuple[int, bool, float]) -> None:
    """A dead or hanging engine fails every waiter and turns readiness and liveness false."""
    waiting, dies, passed_s = script
    async with world(kind) as w:
        w.engine.shut()
        w.engine.error = lambda: SystemExit("gone")
        w.engine.poison = frozenset({0}) if dies else frozenset()
        w.send(0)
        await w.engine.has_begun(1)
        for identity in range(1, waiting + 1):
            w.send(identity)
        if dies:
            w.engine.let_out()
            await w.outcomes()
        else:
            w.clock.advance(passed_s)
            w.batcher.check()
        is_lost = dies or passed_s > TIMEOUT_S
        assert w.batcher.is_alive is not is_lost
        assert w.batcher.is_ready is not is_lost
        if is_lost:
            assert set((await w.outcomes()).values()) == {"inference_failed"}
            assert w.observer.errors == {Reason.INFERENCE_FAILED: waiting + 1}
            with pytest.raises(NotReady):
                w.batcher.admit(1)
        w.engine.open()  # a late result disturbs nobody
        if not is_lost:
            assert set((await w.outcomes()).values()) == set(range(waiting + 1))


PROMISES: dict[int, tuple[Promise, SearchStrategy[Any]]] = {
    1: (promise_1, steps),
    2: (promise_2, st.lists(st.integers(1, 6), min_size=1, max_size=5)),
    3: (promise_3, st.lists(st.integers(1, 9), min_size=1, max_size=5)),
    4: (promise_4, st.tuples(fates, st.sampled_from([0.0, 1.0, 4.9, 5.0, 8.0]), st.booleans())),
    5: (
        promise_5,
        st.lists(
            st.tuples(st.integers(0, 2**32 - 1), st.booleans()),
            min_size=1,
            max_size=MAX_QUEUE,
            unique_by=lambda item: item[0],
        ),
    ),
    6: (
        promise_6,
        st.tuples(
            st.lists(st.integers(1, 6), min_size=1, max_size=4), st.frozensets(st.integers(0, 20), max_size=3)
        ),
    ),
    7: (
        promise_7,
        st.tuples(
            st.integers(0, 9), st.integers(0, 9), st.integers(1, 6), st.integers(0, 2000), st.floats(0.1, 30)
        ),
    ),
    8: (promise_8, st.tuples(st.integers(0, 8), st.integers(0, 3), st.booleans())),
    9: (promise_9, st.tuples(st.integers(0, 6), st.booleans(), st.sampled_from([0.0, 29.9, 30.1, 1e6]))),
}

QUIET = settings(deadline=None, max_examples=60, derandomize=True, database=None)


@pytest.mark.parametrize("number", sorted(PROMISES))
def test_promise(number: int) -> None:
    promise, strategy = PROMISES[number]

    @QUIET
    @given(strategy)
    def holds(script: Any) -> None:
        asyncio.run(promise(Batcher, script))

    holds()


@pytest.mark.parametrize(
    ("number", "mutant"), mutants.ALL, ids=lambda value: getattr(value, "__name__", value)
)
def test_mutant_breaks_its_promise(
    number: int, mutant: type[Batcher], monkeypatch: pytest.MonkeyPatch
) -> None:
    promise, strategy = PROMISES[number]
    monkeypatch.setattr("tests.service.fakes.PATIENCE_S", 0.5)
    monkeypatch.setattr("tests.service.test_batcher_promises.PATIENCE_S", 0.5)
    monkeypatch.setattr(logging.getLogger("service.batcher.batcher"), "disabled", True)

    broken_by: list[Any] = []  # one script is enough: a thread may be quick enough to keep it another time

    @settings(QUIET, max_examples=300, phases=[Phase.generate])
    @given(strategy)
    def search(script: Any) -> None:
        if not broken_by:
            try:
                asyncio.run(promise(mutant, script))
            except (Exception, pytest.fail.Exception):
                broken_by.append(script)

    search()
    assert broken_by
