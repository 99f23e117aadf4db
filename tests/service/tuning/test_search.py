"""The search over services by script: what is tried, what wins, and how it ends."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from xml.etree import ElementTree

import pytest

from service.artifact import Precision
from service.errors import InvalidConfiguration
from service.settings import Settings
from service.tuning import candidates
from service.tuning.anatomy import Anatomy
from service.tuning.candidates import Candidate, Shape
from service.tuning.chart import Line, draw
from service.tuning.interruption import Interrupted
from service.tuning.measuring import Cost, Point, Prober, best_held
from service.tuning.objective import parse_objective
from service.tuning.process import CannotStart, ServiceProcess, Stages
from service.tuning.search import Outcome, Search

START = Candidate()
ALL = (Precision.FP32, Precision.INT8)
STEPS = (
    partial(candidates.shapes, cpus=2, there=Shape(1, 2)),
    partial(candidates.precisions, there=ALL),
    candidates.limits,
)
Speed = Callable[[Candidate], float]
# The search's own curves, before the confirmation begins.
SCREENED = 1 + 2 + 1 + 5


def point(images_per_s: float, excess: float = 0.5, failures: int = 0, workers: int = 1) -> Point:
    return Point(
        clients=8,
        offered_per_s=None,
        images_per_s=images_per_s,
        percentiles_ms={50.0: 10.0, 99.0: 50 * excess},
        excess=excess,
        failures=failures,
        cost=Cost(1.5, 0.8, 0.3),
        stages=Stages({}, {}, 8, 1, workers),
    )


class ScriptedProber(Prober):
    """Measures nothing: knows how fast each candidate is, and may be interrupted."""

    def __init__(self, speed: Speed, interrupt_after: float = math.inf) -> None:
        super().__init__([b""], parse_objective("p99<50ms"), lambda: None)
        self.speed = speed
        self.left = interrupt_after
        self.now: Candidate = START
        self.asked: list[Candidate] = []

    @contextmanager
    def serve(self, candidate: Candidate) -> Iterator[ServiceProcess]:
        service = object.__new__(ServiceProcess)
        service.ready_s = 1.0
        self.now = candidate
        yield service

    def curve(self, service: ServiceProcess, seconds: float) -> list[Point]:
        self.left -= 1
        if self.left < 0:
            raise Interrupted
        self.asked.append(self.now)
        speed = self.speed(self.now)
        if not speed:
            raise CannotStart("no such precision")
        return [point(speed / 2), point(speed), point(2 * speed, excess=1.2)]

    def arrivals(self, service: ServiceProcess, peak_per_s: float, seconds: float) -> list[Point]:
        return [point(peak_per_s / 2)]


def search(prober: ScriptedProber, seconds: float = 3600) -> Outcome:
    return Search(prober, prober.serve, seconds, lambda _: None).run(START, STEPS)


def test_each_step_keeps_the_best_so_far() -> None:
    def speed(candidate: Candidate) -> float:
        fast = 1000.0 * (candidate.workers or 1) + 500 * (candidate.precision is Precision.INT8)
        return fast + candidate.batch_limit

    outcome = search(ScriptedProber(speed))
    assert outcome.best.candidate == Candidate(2, 1, 256, Precision.INT8)
    assert outcome.best.score == 2756
    assert outcome.start.score == 1064
    assert len(outcome.trials) == SCREENED
    assert len(outcome.best.rounds) == len(outcome.start.rounds) == 3
    assert outcome.arrivals[0].images_per_s == 1378


def test_what_is_better_by_noise_changes_nothing() -> None:
    outcome = search(ScriptedProber(lambda candidate: 1000.0 + (candidate.workers or 1)))
    assert outcome.best is outcome.start


def test_a_candidate_that_does_not_start_is_told_and_passed_over() -> None:
    outcome = search(ScriptedProber(lambda each: 0 if each.precision is Precision.INT8 else 1000))
    assert outcome.best is outcome.start
    assert [trial.fault for trial in outcome.trials if trial.fault] == ["no such precision"]


def test_a_start_that_does_not_start_ends_the_search() -> None:
    with pytest.raises(CannotStart, match="no such precision"):
        search(ScriptedProber(lambda _: 0))


def by_workers(candidate: Candidate) -> float:
    return 1000.0 * (candidate.workers or 1)


def test_a_gain_that_is_not_there_in_every_round_changes_nothing() -> None:
    """Better by far in the median, and in one round of three just as good: mutants that take medians fail."""

    def speed(candidate: Candidate) -> float:
        is_second_round = prober.asked.count(candidate) == 3
        return 1000.0 if is_second_round else by_workers(candidate)

    prober = ScriptedProber(speed)
    outcome = search(prober)
    assert max(trial.score for trial in outcome.trials) == 2000
    assert outcome.best is outcome.start
    assert outcome.unconfirmed is None


def test_a_machine_that_slows_down_takes_no_gain_away() -> None:
    prober = ScriptedProber(lambda each: by_workers(each) / len(prober.asked))
    outcome = search(prober)
    assert outcome.best.candidate.workers == 2


def test_a_finalist_that_is_lost_in_one_round_does_not_win() -> None:
    def is_lost(candidate: Candidate) -> bool:
        return candidate != START and prober.asked.count(candidate) == 3

    prober = ScriptedProber(lambda each: 0 if is_lost(each) else by_workers(each))
    outcome = search(prober)
    assert outcome.best is outcome.start
    assert {len(trial.rounds) for trial in outcome.trials} == {0, 3}


@pytest.mark.parametrize("runs", range(1, SCREENED + 6))
def test_a_search_interrupted_before_two_rounds_keeps_the_start(runs: int) -> None:
    outcome = search(ScriptedProber(by_workers, interrupt_after=runs))
    assert outcome.ended_early == "it was interrupted"
    assert outcome.best is outcome.start
    assert outcome.start.score == 1000
    assert len(outcome.trials) <= runs + 1
    has_seen_better = runs > 2
    assert (outcome.unconfirmed is not None) == has_seen_better


def test_a_search_interrupted_after_two_rounds_has_a_winner() -> None:
    outcome = search(ScriptedProber(by_workers, interrupt_after=SCREENED + 6))
    assert outcome.ended_early == "it was interrupted"
    assert outcome.best.candidate.workers == 2
    assert outcome.unconfirmed is None


def test_an_interruption_before_anything_is_known_is_one() -> None:
    with pytest.raises(Interrupted):
        search(ScriptedProber(lambda _: 1000, interrupt_after=0))


def test_without_time_only_the_start_is_measured() -> None:
    prober = ScriptedProber(by_workers)
    outcome = search(prober, seconds=0)
    assert set(prober.asked) == {START}
    assert outcome.best is outcome.start


def test_only_what_holds_the_objective_counts() -> None:
    assert best_held([point(10), point(30, excess=1.0), point(20), point(40, failures=1)]) == point(20)
    assert best_held([point(10, excess=math.nan)]) is None


def test_shapes_share_the_cpus() -> None:
    shapes = {(each.workers, each.threads) for each in candidates.shapes(START, 8, Shape(1, 8))}
    assert shapes == {(1, 1), (2, 1), (2, 4), (4, 1), (4, 2), (8, 1)}


@pytest.mark.parametrize("there", [Shape(1, 1), Shape(1, 2), Shape(2, 1)])
def test_what_the_start_comes_to_anyway_is_not_tried_in_other_words(there: Shape) -> None:
    tried = {Shape(each.workers or 0, each.threads or 0) for each in candidates.shapes(START, 2, there)}
    assert tried == {Shape(1, 1), Shape(1, 2), Shape(2, 1)} - {there}


def test_the_defaults_in_other_words_are_not_tried() -> None:
    assert 64 not in [each.batch_limit for each in candidates.limits(replace(START, workers=2))]
    assert [each.file for each in candidates.precisions(START, ALL)] == [Precision.INT8]


def test_a_candidate_runs_with_everything_else_as_it_is_set() -> None:
    settings = Settings(threads=2, top_k=3, triton_metrics=True, port=1234)
    candidate = Candidate(workers=1, max_batch_size=8, precision=Precision.INT8)
    assert given(candidate.flags(settings, "digits")) == {
        "--workers": "1",
        "--max-batch-size": "8",
        "--precision": "int8",
        "--top-k": "3",
        "--triton-metrics": "true",
        "--models": "digits",
    }
    assert Candidate(1, 2).variables == {"FOLDSERVE_WORKERS": "1", "FOLDSERVE_THREADS": "2"}


def given(flags: list[str]) -> dict[str, str]:
    return dict(zip(flags[::2], flags[1::2], strict=True))


def test_what_is_unset_is_neither_handed_on_nor_written() -> None:
    start = candidates.first(Settings(), Precision.FP32)
    assert start.variables == {}
    assert given(start.flags(Settings(), "digits")) == {"--models": "digits"}
    assert str(start) == "workers auto, threads auto, batch 64, fp32"


def test_what_is_set_is_handed_on_and_written_also_where_it_is_the_default() -> None:
    settings = Settings(workers=1, threads=2, max_batch_size=64, precision="auto")
    assert candidates.first(settings, Precision.INT8).variables == {
        "FOLDSERVE_WORKERS": "1",
        "FOLDSERVE_THREADS": "2",
        "FOLDSERVE_MAX_BATCH_SIZE": "64",
        "FOLDSERVE_PRECISION": "int8",
    }


@pytest.mark.parametrize(
    "text", ["", "p99", "p99<", "p99<50", "p99>50ms", "p0<1ms", "p99<0ms", "p99<1.2.3ms", "errors<1%"]
)
def test_what_is_no_objective_is_refused(text: str) -> None:
    with pytest.raises(InvalidConfiguration, match="is no objective; write"):
        parse_objective(text)


def test_an_objective_is_as_far_off_as_its_worst_bound() -> None:
    objective = parse_objective("p50<10ms, p99<0.1s")
    assert str(objective) == "p50<10ms, p99<100ms"
    assert objective.excess([5.0] * 98 + [150.0, 150.0]) == 1.5
    assert objective.excess([20.0] * 100) == 2
    assert math.isnan(objective.excess([]))


def anatomy(cores: float = 1.9, *, on_gpu: bool = False, has_tried: bool = False) -> Anatomy:
    return Anatomy(0.1, 0.2, 0.1, 8, cores, 2, 0.95, on_gpu, has_tried, {})


def test_the_verdict_names_what_the_limit_is_made_of() -> None:
    text = anatomy().verdict
    assert "0.4 CPU-ms: decoding 25%, inference 50%, HTTP and batching 25%" in text
    assert "The largest part is inference; 1.9 of 2 CPUs are busy" in text


def test_the_verdict_on_a_busy_loop_never_contradicts_the_choice() -> None:
    assert anatomy(1.0).verdict.endswith("the limit (95% busy); more workers were not tried.")
    tried = anatomy(1.0, has_tried=True).verdict
    assert tried.endswith("the limit (95% busy); more workers were tried and are not better.")
    assert anatomy(1.0, on_gpu=True).verdict.endswith("(95% busy), and on a GPU there is one worker.")


def test_the_picture_has_every_curve_and_is_well_formed() -> None:
    lines = [Line("best <2>", [(100, 5), (200, 20)]), Line("start", []), Line("point", [(50, 1)])]
    root = ElementTree.fromstring(draw("a & b", 99, 50, lines))  # noqa: S314 - our own
    texts = [element.text for element in root.iter() if element.tag.endswith("text")]
    assert {"a & b", "best <2>", "start", "50 ms", "p99 latency, ms"} <= set(texts)
    assert len([element for element in root.iter() if element.tag.endswith("circle")]) == 3
