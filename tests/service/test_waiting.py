"""The state machine alone: lingering, states, refusals, and what the repr shows."""

from __future__ import annotations

import math
from dataclasses import dataclass

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.batcher import CostModel, State
from service.batcher.waiting import BatchQueue, Formed
from service.errors import DeadlineExceeded, NotReady, Overloaded, ShuttingDown, TooManyImages


@dataclass(eq=False)
class Instance:
    """What the machine knows of one."""

    enqueued_at: float = 0.0
    deadline: float = math.inf
    is_abandoned: bool = False


def make(max_queue_delay_s: float = 0.0, **sizes: int) -> BatchQueue[Instance]:
    return BatchQueue(
        max_batch_size=sizes.get("max_batch_size", 4),
        max_queue_size=sizes.get("max_queue_size", 100),
        max_queue_delay_s=max_queue_delay_s,
        cost=CostModel(),
    )


def enqueue(queue: BatchQueue[Instance], *instances: Instance) -> None:
    for instance in instances:
        queue.admit(1, instance.deadline, instance.enqueued_at)
        queue.submit(instance)


@given(st.lists(st.floats(0, 10), min_size=1, max_size=8).map(sorted), st.floats(0, 20), st.floats(0.001, 10))
def test_an_idle_engine_waits_no_longer_than_the_delay(
    arrivals: list[float], later_s: float, delay_s: float
) -> None:
    queue = make(max_queue_delay_s=delay_s)
    enqueue(queue, *(Instance(arrival) for arrival in arrivals))
    now = arrivals[-1] + later_s
    formed = queue.form(now)
    if len(arrivals) >= queue.max_batch_size or now >= arrivals[0] + delay_s:
        assert len(formed.batch) == min(len(arrivals), queue.max_batch_size)
        assert formed.linger_until is None
    else:
        assert not formed.batch
        assert formed.linger_until == arrivals[0] + delay_s
        assert len(queue.form(formed.linger_until).batch) == len(arrivals)


def test_a_closing_queue_does_not_linger() -> None:
    queue = make(max_queue_delay_s=10)
    enqueue(queue, Instance())
    queue.state = State.DRAINING
    assert len(queue.form(0).batch) == 1


def test_without_a_delay_the_first_goes_alone() -> None:
    queue = make()
    enqueue(queue, Instance())
    assert len(queue.form(0).batch) == 1


def test_an_empty_line_forms_nothing() -> None:
    assert make().form(0) == Formed([], [], [], None)


@pytest.mark.parametrize(
    ("state", "refusal"),
    [(State.DRAINING, ShuttingDown), (State.CLOSED, ShuttingDown), (State.FAILED, NotReady)],
)
def test_a_state_that_admits_nobody(state: State, refusal: type[Exception]) -> None:
    queue = make()
    queue.state = state
    with pytest.raises(refusal):
        queue.admit(1, math.inf, 0)
    assert queue.in_use == 0


def test_a_deadline_that_has_passed_is_refused() -> None:
    queue = make()
    with pytest.raises(DeadlineExceeded):
        queue.admit(1, 5.0, 5.0)
    queue.admit(1, 5.1, 5.0)


def test_a_request_that_never_fits_says_so() -> None:
    with pytest.raises(TooManyImages, match="101 images"):
        make().admit(101, math.inf, 0)


def test_a_full_queue_says_when_to_come_back() -> None:
    queue = make(max_queue_size=8)
    for size in (1, 4) * 50:
        queue.cost.learn(size, 1.0 + size)
    enqueue(queue, *(Instance() for _ in range(8)))
    queue.form(0)
    with pytest.raises(Overloaded, match="8 of 8") as refusal:
        queue.admit(1, math.inf, 2.0)
    assert refusal.value.retry_after_s == pytest.approx(3.0 + 5.0)


def test_an_idle_engine_refuses_nobody_on_a_prediction() -> None:
    queue = make()
    for seconds in (0.5, *[60.0] * 500):
        queue.cost.learn(1, seconds)
    assert queue.cost.predict_s(1) > 30
    queue.admit(1, 1.0, 0.0)
    with pytest.raises(Overloaded):
        queue.admit(1, 1.0, 0.0)


def test_an_idle_engine_refuses_what_it_was_never_fast_enough_for() -> None:
    queue = make()
    queue.cost.learn(1, 0.5)
    with pytest.raises(Overloaded) as refusal:
        queue.admit(1, 0.4, 0.0)
    assert refusal.value.retry_after_s == pytest.approx(0.5)
    queue.admit(1, 0.6, 0.0)


def test_what_is_running_counts_as_long_as_it_should_take() -> None:
    queue = make()
    for size in (1, 4) * 50:
        queue.cost.learn(size, 1.0 + size)
    enqueue(queue, Instance())
    queue.form(10.0)
    assert queue.wait_s(10.5) == pytest.approx(1.5)
    assert queue.wait_s(99.0) == 0


def test_the_oldest_waiting_instance_has_an_age() -> None:
    queue = make()
    assert queue.age_s(7.0) == 0
    enqueue(queue, Instance(2.0), Instance(3.0))
    assert queue.age_s(7.0) == 5.0


def test_the_repr_shows_the_state() -> None:
    queue = make(max_queue_size=9)
    queue.admit(2, math.inf, 0)
    enqueue(queue, *(Instance() for _ in range(5)))
    queue.form(0)
    assert repr(queue) == "<BatchQueue open: 2 decoding, 1 waiting, 4 running, 7 of 9 slots in use>"


def test_abandoning_takes_out_of_the_line_once() -> None:
    queue = make()
    first, second = Instance(), Instance()
    enqueue(queue, first, second)
    assert queue.abandon(first)
    assert not queue.abandon(first)
    assert queue.form(0).batch == [second]
    assert not queue.abandon(second)


def test_where_decoding_is_slower_than_the_engine_it_decides_the_wait() -> None:
    queue = make()
    for size in (1, 4) * 50:
        queue.cost.learn(size, 0.001 * size)
    for arrival in range(100, 130):
        queue.admit(1, math.inf, arrival)
        queue.submit(Instance(arrival + 0.1))
        queue.form(arrival + 0.2)
        queue.settle(1)
    queue.form(200.0)
    queue.admit(10, math.inf, 200.0)
    assert queue.wait_s(200.0) == pytest.approx(1.0)
    with pytest.raises(Overloaded) as refusal:
        queue.admit(5, 201.4, 200.0)
    assert refusal.value.retry_after_s == pytest.approx(1.5)
    queue.admit(5, 201.6, 200.0)


def test_a_slow_engine_takes_short_batches_where_long_ones_gain_nothing() -> None:
    queue = make()
    for size in (1, 4) * 50:
        queue.cost.learn(size, 0.001 + 0.03 * size)
    enqueue(queue, *(Instance() for _ in range(4)))
    assert [len(queue.form(0.0).batch) for _ in range(3)] == [1, 1, 1]


def test_who_cannot_be_answered_in_time_any_more_is_not_run() -> None:
    queue = make()
    enqueue(queue, Instance(deadline=100.0), Instance(deadline=10.5), Instance(deadline=12.0))
    for size in (1, 4):
        queue.cost.learn(size, 1.0)
    formed = queue.form(10.0)
    assert [instance.deadline for instance in formed.batch] == [100.0, 12.0]
    assert [instance.deadline for instance in formed.expired] == [10.5]


def test_the_first_is_tried_unless_it_is_certain_to_be_late() -> None:
    queue = make()
    for seconds in (0.4, *[60.0] * 500):
        queue.cost.learn(1, seconds)
    enqueue(queue, Instance(deadline=10.5))
    assert len(queue.form(10.0).batch) == 1
    queue.settle(1)
    enqueue(queue, Instance(deadline=11.0))
    assert len(queue.form(10.7).expired) == 1


def test_predictions_that_were_wrong_before_get_a_margin() -> None:
    queue = make()
    queue.cost.learn(1, 1.0)
    queue.admit(1, math.inf, 0.0)
    assert queue.admit(1, 2.5, 0.0) == 2.0
    for _ in range(500):
        queue.lateness.learn(-0.1)
    with pytest.raises(Overloaded, match=r"3\.000 s, give or take 0\.600 s"):
        queue.admit(1, 3.5, 0.0)
    queue.admit(1, 3.7, 0.0)


def test_bad_images_count_as_decoded() -> None:
    queue = make()
    for arrival in range(20):
        queue.admit(2, math.inf, arrival)
        queue.release(1, arrival + 0.1)
        queue.submit(Instance(arrival + 0.2))
    assert queue.pace.drain_s(1) == pytest.approx(0.1)


def test_images_that_nobody_wants_say_nothing_about_decoding() -> None:
    queue = make()
    queue.admit(5, math.inf, 0.0)
    queue.withdraw(5)
    assert queue.in_use == queue.decoding == 0
    assert queue.pace.drain_s(1) == 0
