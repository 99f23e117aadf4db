"""The state machine alone: lingering, states, refusals, and what the repr shows."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TypeAlias

import pytest
from hypothesis import find, given, settings
from hypothesis import strategies as st

from service.batcher import CostModel, State
from service.batcher.waiting import BatchQueue, Formed, Running
from service.errors import DeadlineExceeded, NotReady, Overloaded, ShuttingDown, TooManyImages


@dataclass(eq=False)
class Instance:
    """What the machine knows of one."""

    enqueued_at: float = 0.0
    deadline: float = math.inf
    is_abandoned: bool = False
    is_encoded: bool = False


def make(max_queue_delay_s: float = 0.0, **sizes: int) -> BatchQueue[Instance]:
    return BatchQueue(
        max_batch_size=sizes.get("max_batch_size", 4),
        max_queue_size=sizes.get("max_queue_size", 100),
        max_queue_delay_s=max_queue_delay_s,
        cost=CostModel(),
        lanes=sizes.get("lanes", 1),
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
        queue.cost.learn(size, 0.001 + 0.05 * size)
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


def test_after_images_that_took_long_to_decode_those_that_need_not_be_are_let_in_again() -> None:
    queue = make(lanes=2)
    for arrival in range(20):
        queue.admit(1, math.inf, arrival)
        queue.submit(Instance(arrival + 0.5))
        queue.settle(1)
    assert queue.pace.drain_s(1) == pytest.approx(0.5)
    for arrival in range(20, 200):
        queue.admit(1, math.inf, arrival)
        queue.submit(Instance(arrival, is_encoded=True))
        queue.settle(1)
    assert queue.pace.drain_s(1) < 0.001
    assert queue.decoding == 0


def test_what_two_lanes_put_back_stands_in_the_order_of_its_coming() -> None:
    queue = make(lanes=2)
    instances = [Instance(number) for number in range(8)]
    enqueue(queue, *instances)
    assert [queue.form(8.0, lane).batch for lane in (0, 1)] == [instances[:4], instances[4:6]]
    queue.put_back(instances[2:4], lane=0)
    queue.put_back(instances[5:6], lane=1)
    assert queue.empty() == [*instances[2:4], *instances[5:]]


def test_a_batch_that_is_put_back_comes_first_again() -> None:
    queue = make(lanes=2)
    instances = [Instance(number) for number in range(6)]
    enqueue(queue, *instances)
    assert queue.form(6.0, lane=1).batch == instances[:3]
    queue.put_back(instances[1:3], lane=1)
    assert queue.running == [None, Running(1, 6.0, 0.5)]
    assert queue.form(6.0, lane=0).batch == instances[1:4]
    assert queue.form(7.0, lane=1).batch == instances[4:5]


@pytest.mark.parametrize(("encoded", "batches"), [(0, [4]), (1, [4]), (2, [1, 1, 1, 1])])
def test_images_that_one_thread_would_decode_in_a_row_go_into_lanes(encoded: int, batches: list[int]) -> None:
    queue = make(lanes=8, max_batch_size=16)
    enqueue(queue, *(Instance(is_encoded=number < encoded) for number in range(4)))
    formed = [queue.form(0.0, lane) for lane in range(8)]
    assert [len(each.batch) for each in formed if each.batch] == batches
    assert formed[0].share == (1 if encoded < 2 else 1 / 8)


@pytest.mark.parametrize(
    ("lanes", "in_use", "takes"),
    [(1, 1, False), (1, 9, False), (3, 1, True), (3, 2, False), (3, 3, True), (3, 9, True)],
)
def test_encoded_images_are_for_a_lone_one_and_for_busy_lanes(lanes: int, in_use: int, takes: bool) -> None:
    queue = make(lanes=lanes)
    queue.admit(in_use, math.inf, 0.0)
    assert queue.takes_encoded is takes


Script: TypeAlias = tuple[int, list[tuple[str, int]]]
scripts = st.tuples(
    st.integers(2, 4),
    st.lists(
        st.one_of(
            st.tuples(st.just("arrive"), st.integers(1, 9)), st.tuples(st.just("form"), st.integers(0, 3))
        ),
        max_size=30,
    ),
)


def lanes_keep_apart(kind: type[BatchQueue[Instance]], script: Script) -> None:
    """Lanes run side by side and share the line; a wide batch runs alone; first come, first served."""
    lanes, steps = script
    queue = make(lanes=lanes, max_queue_size=1000)
    queue.__class__ = kind
    sent: list[Instance] = []
    ran: list[Instance] = []
    for step, argument in steps:
        if step == "arrive":
            arrived = [Instance() for _ in range(argument)]
            enqueue(queue, *arrived)
            sent += arrived
            continue
        lane, waiting = argument % lanes, len(queue)
        others = [running for at, running in enumerate(queue.running) if running is not None and at != lane]
        formed = queue.form(0.0, lane)
        ran += formed.batch
        if any(running.share == 1 for running in others):
            assert not formed.batch
        elif not others and waiting < lanes:
            assert (len(formed.batch), formed.share) == (waiting, 1)
        else:
            assert len(formed.batch) == min(queue.max_batch_size, -(-waiting // lanes))
            assert formed.share == (1 / lanes if waiting else 1)
        shares = [running.share for running in queue.running if running is not None]
        assert shares in ([], [1.0]) or set(shares) == {1 / lanes}
    assert ran == sent[: len(ran)]


@given(scripts)
def test_lanes_keep_apart(script: Script) -> None:
    lanes_keep_apart(BatchQueue, script)


class TakesTheWholeLine(BatchQueue[Instance]):
    """Leaves nothing for the other lanes."""

    def _next_batch(self) -> tuple[int, float]:
        return self.batch_limit, super()._next_batch()[1]


class WideBesideLanes(BatchQueue[Instance]):
    """Gives a lone instance all cores, whoever else runs."""

    def _next_batch(self) -> tuple[int, float]:
        return (1, 1.0) if len(self) == 1 else super()._next_batch()


class LanesBesideWide(BatchQueue[Instance]):
    """Does not wait until a wide batch is over."""

    @property
    def is_wide(self) -> bool:
        return False


@pytest.mark.parametrize("mutant", [TakesTheWholeLine, WideBesideLanes, LanesBesideWide])
def test_lanes_that_do_not_keep_apart_are_noticed(mutant: type[BatchQueue[Instance]]) -> None:
    def breaks(script: Script) -> bool:
        try:
            lanes_keep_apart(mutant, script)
        except AssertionError:
            return True
        return False

    find(scripts, breaks, settings=settings(derandomize=True, database=None, max_examples=2000))


def test_lanes_count_by_their_share_of_the_machine() -> None:
    queue = make(lanes=2)
    for size in (1, 4) * 50:
        queue.cost.learn(size, 1.0 + size)
    enqueue(queue, *(Instance() for _ in range(2)))
    queue.form(10.0, 0)
    queue.form(10.0, 1)
    assert [running and running.share for running in queue.running] == [0.5, 0.5]
    assert queue.wait_s(11.0) == pytest.approx(2 * (2.0 - 0.5))
    assert queue.wait_s(99.0) == 0


def test_a_lane_that_hangs_beside_others_is_noticed() -> None:
    queue = make(lanes=2)
    enqueue(queue, *(Instance() for _ in range(4)))
    queue.form(0.0, 0)
    queue.form(0.0, 1)
    queue.form(25.0, 1)
    assert not queue.is_stuck(29.0, 30.0)
    assert queue.is_stuck(31.0, 30.0)


def test_in_a_lane_who_cannot_be_answered_in_time_is_not_run() -> None:
    queue = make(lanes=2)
    for size in (1, 4) * 50:
        queue.cost.learn(size, 0.01 * size)
    doomed = Instance(deadline=10.015)  # the machine could do it in 0.01 s, a lane takes twice as long
    enqueue(queue, Instance(), doomed, Instance(), Instance())
    formed = queue.form(10.0, 0)
    assert formed.expired == [doomed]
    assert len(formed.batch) == 2
    last = next(iter(queue._line))
    last.deadline = 10.015
    assert queue.form(10.0, 1).expired == [last]


def test_beside_a_lane_that_runs_an_answer_takes_as_long_as_in_a_lane() -> None:
    queue = make(lanes=8, max_batch_size=16)
    for size in (1, 4) * 50:
        queue.cost.learn(size, 0.5e-3 + 2.4e-3 * size)
    alone_s = queue.drain_s(1, 10.0)
    assert alone_s == pytest.approx(2.9e-3)  # all cores
    enqueue(queue, *(Instance() for _ in range(8)))
    for lane in range(8):
        queue.form(10.0, lane)
    for lane in range(1, 8):
        queue.form(10.0, lane)
        queue.settle(1)
    assert queue.wait_s(10.0) == 0  # seven lanes are free
    assert queue.drain_s(1, 10.0) == pytest.approx(8 * 2.9e-3)
    enqueue(queue, *(Instance() for _ in range(7)))
    for lane in range(1, 8):
        queue.form(10.0, lane)
    assert queue.wait_s(10.001) == pytest.approx(8 * 2.9e-3 - 1e-3)
    assert queue.drain_s(1, 10.001) == pytest.approx(2 * 8 * 2.9e-3 - 1e-3)


def test_a_wide_batch_keeps_every_lane_waiting() -> None:
    queue = make(lanes=4)
    for size in (1, 4) * 50:
        queue.cost.learn(size, 0.01 * size)
    enqueue(queue, Instance())
    queue.form(10.0, 2)
    assert queue.wait_s(10.004) == pytest.approx(0.006)


def test_what_many_lanes_leave_over_does_not_linger_but_one_lanes_does() -> None:
    for lanes, size in ((1, 0), (3, 1)):
        queue = make(max_queue_delay_s=10, lanes=lanes)
        enqueue(queue, *(Instance() for _ in range(5)))
        queue.form(0.0, 0)
        assert len(queue) in (1, 3)
        assert len(queue.form(0.0, lanes - 1).batch) == size
