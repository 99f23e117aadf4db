"""The batcher's edges: permits, rows, wrong pixels, lingering on a real thread, and the log."""

from __future__ import annotations

import asyncio
import logging
import threading

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from service.batcher import Batcher, FinishedBatch, Row
from service.errors import InferenceFailed, InvalidInstance
from tests.service.fakes import (
    PATIENCE_S,
    SHAPE,
    FakeClock,
    GatedEngine,
    RecordingObserver,
    identity_of,
    pixels_of,
    until,
)


async def test_a_permit_gives_back_what_its_block_did_not_use() -> None:
    batcher = Batcher(GatedEngine(), input_shape=SHAPE)
    with batcher.admit(3) as permit:
        async with asyncio.timeout(PATIENCE_S):
            assert identity_of(await batcher.submit(permit, pixels_of(7))) == 7
        assert permit.slots == 2
    assert batcher.in_use == 0
    permit.close()
    assert batcher.in_use == 0
    await batcher.close(1)


async def test_a_permit_is_not_overdrawn() -> None:
    batcher = Batcher(GatedEngine(), input_shape=SHAPE)
    permit = batcher.admit(2)
    permit.release()
    with pytest.raises(ValueError, match="2 of 1"):
        permit.release(2)
    batcher.submit(permit, pixels_of(1))
    with pytest.raises(ValueError, match="every slot"):
        batcher.submit(permit, pixels_of(1))
    await batcher.close(1)


@pytest.mark.parametrize(
    "pixels", [np.zeros((2, 2, 3), np.uint8), np.zeros((1, 1, 1), np.uint8), np.zeros(SHAPE, np.float32)]
)
async def test_other_pixels_are_refused_and_the_slot_is_kept(pixels: NDArray[np.uint8]) -> None:
    batcher = Batcher(GatedEngine(), input_shape=SHAPE)
    with batcher.admit(1) as permit:
        with pytest.raises(InvalidInstance, match=r"expected uint8 \[2, 2, 1\]"):
            batcher.submit(permit, pixels)
        assert permit.slots == 1
    await batcher.close(1)


async def test_a_cancelled_request_leaves_the_line_at_once() -> None:
    engine = GatedEngine()
    observer = RecordingObserver()
    batcher = Batcher(engine, input_shape=SHAPE, observer=observer)
    engine.shut()
    running = batcher.submit(batcher.admit(1), pixels_of(0))
    await engine.has_begun(1)

    async def request() -> None:
        with batcher.admit(3) as permit:
            futures = [batcher.submit(permit, pixels_of(identity)) for identity in (1, 2, 3)]
            for future in futures:
                await future

    task = asyncio.create_task(request())
    await until(lambda: batcher.depth == 3)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert batcher.depth == 0
    assert batcher.in_use == 1
    assert observer.cancelled["queue"] == 3
    engine.open()
    async with asyncio.timeout(PATIENCE_S):
        await running
    assert engine.ran == [0]
    await batcher.close(1)


async def test_a_lingering_engine_is_woken_by_a_full_batch() -> None:
    engine = GatedEngine()
    clock = FakeClock()
    batcher = Batcher(engine, input_shape=SHAPE, max_batch_size=3, max_queue_delay_s=1e3, clock=clock)
    permit = batcher.admit(3)
    await until(lambda: batcher.is_idle)
    for identity in range(3):
        batcher.submit(permit, pixels_of(identity))
        await asyncio.sleep(0)
    await engine.has_begun(1)
    assert engine.batches == [[0, 1, 2]]
    await batcher.close(1)


async def test_a_lingering_engine_runs_what_waits_when_it_closes() -> None:
    engine = GatedEngine()
    batcher = Batcher(engine, input_shape=SHAPE, max_queue_delay_s=1e3)
    future = batcher.submit(batcher.admit(1), pixels_of(5))
    await batcher.close(PATIENCE_S)
    assert identity_of(future.result()) == 5


async def test_a_lingering_engine_runs_what_waits_when_the_delay_is_over() -> None:
    batcher = Batcher(GatedEngine(), input_shape=SHAPE, max_queue_delay_s=0.01)
    async with asyncio.timeout(PATIENCE_S):
        assert identity_of(await batcher.submit(batcher.admit(1), pixels_of(6))) == 6
    await batcher.close(1)


async def test_requests_of_one_turn_run_together() -> None:
    engine = GatedEngine()
    batcher = Batcher(engine, input_shape=SHAPE, max_batch_size=8)
    await until(lambda: batcher.is_idle)

    async def request(identity: int) -> None:
        with batcher.admit(1) as permit:
            await batcher.submit(permit, pixels_of(identity))

    async with asyncio.timeout(PATIENCE_S):
        await asyncio.gather(*(request(identity) for identity in range(8)))
    assert engine.batches == [list(range(8))]
    await batcher.close(1)


async def test_the_cause_of_a_failure_is_logged_and_not_sent(caplog: pytest.LogCaptureFixture) -> None:
    engine = GatedEngine()
    engine.poison = frozenset({1})
    engine.error = lambda: RuntimeError("the secret cause")
    batcher = Batcher(engine, input_shape=SHAPE, name="digits/3")
    with batcher.admit(1) as permit, pytest.raises(InferenceFailed) as caught, caplog.at_level(logging.ERROR):
        async with asyncio.timeout(PATIENCE_S):
            await batcher.submit(permit, pixels_of(1))
    assert "secret" not in str(caught.value)
    assert "secret" in str(caught.value.__cause__)
    assert "secret" in caplog.text
    assert "digits/3" in caplog.text
    await batcher.close(1)


async def test_results_for_another_number_of_instances_fail_the_batch() -> None:
    def run(pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        return np.zeros((5, 3), np.float32), np.zeros((5, 3), np.float32)

    batcher = Batcher(run, input_shape=SHAPE)
    with batcher.admit(1) as permit, pytest.raises(InferenceFailed):
        async with asyncio.timeout(PATIENCE_S):
            await batcher.submit(permit, pixels_of(1))
    await batcher.close(1)


async def test_timing_rides_back_with_the_row() -> None:
    engine = GatedEngine()
    clock = FakeClock()
    batcher = Batcher(engine, input_shape=SHAPE, clock=clock)
    engine.shut()
    first = batcher.submit(batcher.admit(1), pixels_of(0))
    await engine.has_begun(1)
    second = batcher.submit(batcher.admit(1), pixels_of(1))
    clock.advance(3.0)
    engine.let_out()
    await engine.has_begun(2)
    clock.advance(0.5)
    engine.open()
    async with asyncio.timeout(PATIENCE_S):
        rows = [await first, await second]
    assert [row.queue_s for row in rows] == [0.0, 3.0]
    assert [row.inference_s for row in rows] == [3.0, 0.5]
    assert [row.batch_size for row in rows] == [1, 1]
    assert repr(rows[0]) == "<Row 0 of 1, 3000.00 ms>"
    await batcher.close(1)


async def test_a_closed_batcher_leaves_no_thread() -> None:
    def is_there() -> bool:
        return any(thread.name == "engine of-this-test" for thread in threading.enumerate())

    batcher = Batcher(GatedEngine(), input_shape=SHAPE, name="of-this-test")
    assert is_there()
    await batcher.close(PATIENCE_S)
    await until(lambda: not is_there())
    await batcher.close(PATIENCE_S)


matrices = st.tuples(st.integers(1, 5), st.sampled_from([1, 2, 10, 300]))
ties = st.sampled_from([0.0, 0.125, 0.25, 0.5, 1.0])


@given(hnp.arrays(np.float32, matrices, elements=ties), st.lists(st.integers(1, 12), min_size=1, max_size=3))
def test_top_k_is_sorted_by_probability_then_index(
    probabilities: NDArray[np.float32], wishes: list[int]
) -> None:
    batch = FinishedBatch(probabilities, probabilities, 0.0, [0.0] * len(probabilities), 0.0)
    for index, row in enumerate(probabilities.tolist()):
        ranked = sorted(enumerate(row), key=lambda item: (-item[1], item[0]))
        for k in wishes:
            assert Row(batch, index, 0.0).top(k) == ranked[:k]
