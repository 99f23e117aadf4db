"""The search for the knee comes near it from wherever it begins, and says where it could not look."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.answers import OK
from loadtest.knee import STEPS, Search, search
from loadtest.measurement import MAX_LAG_MS, Health, Recording, Sample
from loadtest.objective import parse
from loadtest.report import as_text, conclude, is_held
from loadtest.schedule import Phase

DURATION_S = 20.0
OBJECTIVES = parse("p99<100ms")


class Scripted:
    """A service that is fast up to one rate, before a generator that keeps up to another."""

    def __init__(self, knee_per_s: float, generator_per_s: float = math.inf) -> None:
        self.rates: list[float] = []
        self._knee_per_s = knee_per_s
        self._generator_per_s = generator_per_s

    def play(self, phase: Phase) -> Recording:
        """What a run of it would see."""
        self.rates.append(phase.rate_per_s)
        latency_s = 0.01 if phase.rate_per_s <= self._knee_per_s else 1.0
        samples = tuple(
            Sample(phase.duration_s * share, latency_s, "raw", 1, OK, 0, 0, {}) for share in (0.0, 0.5)
        )
        lag_ms = 0.1 if phase.rate_per_s <= self._generator_per_s else 2 * MAX_LAG_MS
        return Recording(samples, phase.duration_s, Health(lag_ms, waited=1))

    def searched(self, first_per_s: float) -> Search:
        """The search over it."""
        return search(self.play, lambda summary: is_held(summary, OBJECTIVES), first_per_s, DURATION_S)


@given(st.floats(10, 10_000), st.floats(-2.5, 3.5))
def test_it_comes_near_from_above_and_from_below(knee_per_s: float, distance: float) -> None:
    service = Scripted(knee_per_s)
    found = service.searched(knee_per_s / 2**distance)
    result = conclude("", found.recording, OBJECTIVES, found.phases, in_steps=True)
    assert knee_per_s / 1.25 < result.knee_per_s <= knee_per_s
    assert len(service.rates) <= STEPS
    assert [step.phase.rate_per_s for step in result.steps] == sorted(service.rates)
    assert result.judgements[0].holds == (service.rates[0] <= knee_per_s)


def test_every_step_keeps_its_own_requests() -> None:
    found = Scripted(350).searched(100)
    result = conclude("", found.recording, OBJECTIVES, found.phases, in_steps=True)
    assert {step.summary.requests for step in result.steps} == {2}
    assert all(step.is_held == (step.phase.rate_per_s <= 350) for step in result.steps)
    assert found.recording.health == Health(0.1, waited=len(found.phases))


def test_a_knee_that_was_not_reached_is_none() -> None:
    found = Scripted(math.inf).searched(10)
    result = conclude("", found.recording, OBJECTIVES, found.phases, in_steps=True)
    assert result.limits == f"held up to {10 * 2 ** (STEPS - 1):,} arrivals/s, and more was not tried"


def test_a_service_that_holds_nothing_is_not_asked_by_a_handful() -> None:
    service = Scripted(0)
    found = service.searched(100)
    result = conclude("", found.recording, OBJECTIVES, found.phases, in_steps=True)
    assert min(service.rates) * DURATION_S / STEPS >= 10
    assert (result.exit_code, result.limits) == (1, "held up to 0 arrivals/s")


def test_steps_in_which_the_generator_was_late_do_not_count() -> None:
    found = Scripted(math.inf, generator_per_s=900).searched(100)
    result = conclude("", found.recording, OBJECTIVES, found.phases, in_steps=True)
    assert result.is_valid
    assert result.exit_code == 0
    assert 800 <= result.knee_per_s <= 900
    assert max(phase.rate_per_s for phase in found.phases) <= 900
    assert "the generator itself was late" in result.limits


@pytest.mark.parametrize("knee_per_s", [math.inf, 1.0])
def test_a_first_step_that_says_nothing_ends_it(knee_per_s: float) -> None:
    service = Scripted(knee_per_s, generator_per_s=50)
    found = service.searched(100)
    result = conclude("", found.recording, OBJECTIVES, found.phases, in_steps=True)
    assert service.rates == [100]
    assert result.exit_code == 2
    assert "INVALID" in as_text(result)
