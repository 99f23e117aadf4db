"""The search: which configuration holds the objective at the highest throughput.

::

    search        each candidate once, each step keeping the best so far        55 % of the time
    confirmation  the best ones beside the start, in turns, three rounds         30 %
    promise       independent arrivals at the winner, at rising rates            15 %

A candidate replaces the start only if it beats it by `_MARGIN` in every round of the confirmation, each
beside the start's own of the same round: whatever else the machine did then, it did to both. Interrupted
or out of time before there were `_LEAST_ROUNDS`, the search keeps the start, and says what looked better.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from service.tuning.candidates import Candidate
from service.tuning.interruption import Interrupted
from service.tuning.load import TargetLost
from service.tuning.measuring import Point, Prober, best_held
from service.tuning.process import CannotStart, ServiceProcess

Serve: TypeAlias = Callable[[Candidate], AbstractContextManager[ServiceProcess]]
Step: TypeAlias = Callable[[Candidate], Iterable[Candidate]]

SEARCH_SHARE: Final = 0.55
CONFIRMATION_SHARE: Final = 0.30
_ROUNDS: Final = 3
# One round could be luck.
_LEAST_ROUNDS: Final = 2
_FINALISTS: Final = 2
_MARGIN: Final = 1.03
# A curve has about so many points; a run of the search, so many seconds each.
_POINTS: Final = 7
_LEAST_S, _MOST_S = 0.3, 5.0
_EXPECTED_RUNS: Final = 10
_ARRIVAL_RATES: Final = 7
# What it takes to stop a process.
_STOP_S: Final = 0.5


@dataclass(slots=True)
class Trial:
    """All that was measured of one candidate.

    Attributes:
        screening: The search's own curve.
        rounds: The curves of the confirmation, in order; an empty one where it could not be measured.
        fault: Why it could not be measured.
    """

    candidate: Candidate
    screening: list[Point] = field(default_factory=list)
    rounds: list[list[Point]] = field(default_factory=list)
    fault: str | None = None

    @property
    def curves(self) -> list[list[Point]]:
        """The confirmed ones, else that of the search."""
        return self.rounds or [self.screening]

    @property
    def score(self) -> float:
        """Images a second at which the objective is held: the median of its curves; 0 where it never is."""
        return statistics.median(map(_held_per_s, self.curves))

    @property
    def first_score(self) -> float:
        """The same of the search's own curve alone."""
        return _held_per_s(self.screening)

    def beats(self, start: Trial) -> bool:
        """Whether it was better than the start in every round, by more than noise."""
        pairs = list(zip(map(_held_per_s, self.rounds), map(_held_per_s, start.rounds), strict=False))
        return len(pairs) >= _LEAST_ROUNDS and all(own > _MARGIN * other for own, other in pairs)

    @property
    def workers(self) -> int:
        """Those that it was seen with; 0 where nothing was measured."""
        return max((point.stages.workers for curve in self.curves for point in curve), default=0)

    @property
    def nearest(self) -> float:
        """How near it came to the objective; infinity where nothing was measured."""
        return min((point.excess for curve in self.curves for point in curve), default=float("inf"))


@dataclass(slots=True)
class Outcome:
    """What the search found.

    Attributes:
        start: The configuration that was there before.
        best: The one to use; the start itself, where nothing is confirmed to be better.
        unconfirmed: What looked better when the search ended without a confirmation; None: nothing, or
            there was one.
        trials: Of every candidate, in the order of their first run.
        arrivals: Independent arrivals at the best one.
        ended_early: Why not everything was measured; None where it was.
    """

    start: Trial
    best: Trial
    trials: list[Trial]
    unconfirmed: Trial | None = None
    arrivals: list[Point] = field(default_factory=list)
    ended_early: str | None = None

    @property
    def is_held(self) -> bool:
        """Whether any configuration holds the objective."""
        return self.best.score > 0


class Search:
    """One search within a time.

    Args:
        prober: What loads a service.
        serve: A candidate as a running service, for the length of a block.
        seconds: For everything.
        tell: Told of every step.
    """

    def __init__(
        self,
        prober: Prober,
        serve: Serve,
        seconds: float,
        tell: Callable[[str], None],
    ) -> None:
        self._prober = prober
        self._serve = serve
        self._seconds = seconds
        self._tell = tell
        self._began = time.monotonic()
        self._start_s = 3.0
        self._trials: dict[Candidate, Trial] = {}

    def run(self, start: Candidate, steps: Sequence[Step]) -> Outcome:
        """Search, confirm, promise.

        Args:
            start: The configuration that is there.
            steps: From the best so far to what is tried beside it, one after the other.

        Raises:
            CannotStart: The start itself does not run.
            Interrupted: Before the start was measured.
        """
        self._try(start, self._point_s(SEARCH_SHARE / _EXPECTED_RUNS))
        first = self._trials[start]
        if first.fault is not None:
            raise CannotStart(first.fault)
        outcome = Outcome(first, first, list(self._trials.values()))
        try:
            self._search(steps)
            self._confirm(first)
            outcome.best = self._winner(first)
            outcome.arrivals = self._promise(outcome.best)
        except Interrupted:
            outcome.best = self._winner(first)
            outcome.ended_early = "it was interrupted"
        outcome.unconfirmed = self._unconfirmed(first)
        outcome.trials = list(self._trials.values())
        return outcome

    def _search(self, steps: Sequence[Step]) -> None:
        for step in steps:
            best = max(self._trials.values(), key=_rank).candidate
            for candidate in step(best):
                seconds = self._point_s(SEARCH_SHARE / _EXPECTED_RUNS)
                if self._elapsed_s + self._run_s(seconds) > SEARCH_SHARE * self._seconds:
                    self._tell("the time for the search is used up")
                    return
                if candidate not in self._trials:
                    self._try(candidate, seconds)

    def _confirm(self, first: Trial) -> None:
        """The best ones beside the start, in turns: what else the machine does is spread over all of them."""
        ranked = sorted(self._trials.values(), key=_rank, reverse=True)
        finalists = [first, *(trial for trial in ranked if trial is not first and not trial.fault)]
        finalists = finalists[: 1 + _FINALISTS]
        seconds = self._point_s(CONFIRMATION_SHARE / _ROUNDS / len(finalists))
        for number in range(_ROUNDS):
            is_late = self._elapsed_s > (SEARCH_SHARE + CONFIRMATION_SHARE) * self._seconds
            if number and is_late:
                self._tell("the time for the confirmation is used up")
                return
            for trial in finalists if number % 2 == 0 else reversed(finalists):
                self._measure(trial, seconds, trial.rounds.append)

    def _winner(self, first: Trial) -> Trial:
        """The best of those that are confirmed to be better than the start."""
        confirmed = [trial for trial in self._trials.values() if trial.beats(first)]
        return max(confirmed, key=_rank, default=first)

    def _unconfirmed(self, first: Trial) -> Trial | None:
        """What the search found best, where there were too few rounds to confirm anything."""
        others = [trial for trial in self._trials.values() if trial is not first]
        if min(len(first.rounds), max((len(each.rounds) for each in others), default=0)) >= _LEAST_ROUNDS:
            return None
        best = max(others, key=lambda trial: trial.first_score, default=first)
        return best if best.first_score > _MARGIN * first.first_score else None

    def _promise(self, best: Trial) -> list[Point]:
        if not best.score:
            return []
        left_s = self._seconds - self._elapsed_s - self._start_s
        seconds = min(_MOST_S, max(_LEAST_S, left_s / (_ARRIVAL_RATES + 0.5)))
        self._tell(f"independent arrivals: {best.candidate}")
        with self._serve(best.candidate) as service:
            return self._prober.arrivals(service, best.score, seconds)

    def _try(self, candidate: Candidate, seconds: float) -> None:
        trial = self._trials.setdefault(candidate, Trial(candidate))
        self._measure(trial, seconds, trial.screening.extend)

    def _measure(self, trial: Trial, seconds: float, keep: Callable[[list[Point]], None]) -> None:
        candidate, begin = trial.candidate, time.monotonic()
        try:
            with self._serve(candidate) as service:
                self._start_s = max(1.0, service.ready_s + _STOP_S)
                curve = self._prober.curve(service, seconds)
        except (CannotStart, TargetLost) as error:
            trial.fault = str(error)
            self._tell(f"{candidate}: cannot be measured: {error}")
            keep([])
            return
        keep(curve)
        held = best_held(curve)
        found = "objective missed" if held is None else f"{held.images_per_s:,.0f} images/s hold it"
        spent_s = time.monotonic() - begin
        self._tell(
            f"[{self._elapsed_s:3.0f} of {self._seconds:.0f} s] {candidate}: {found} ({spent_s:.0f} s)"
        )

    @property
    def _elapsed_s(self) -> float:
        return time.monotonic() - self._began

    def _point_s(self, share: float) -> float:
        """How long a point of a curve may take, where a run may take this share of the time."""
        return min(_MOST_S, max(_LEAST_S, (share * self._seconds - self._start_s) / _POINTS))

    def _run_s(self, point_s: float) -> float:
        return self._start_s + _POINTS * point_s


def _held_per_s(curve: Sequence[Point]) -> float:
    held = best_held(curve)
    return held.images_per_s if held else 0.0


def _rank(trial: Trial) -> tuple[float, float]:
    """Higher throughput first; where none holds the objective, whoever is nearest."""
    return trial.score, -trial.nearest
