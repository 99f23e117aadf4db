"""What an overload's figures are made of, from a run by script."""

from __future__ import annotations

import pytest

from benchmarks.overload.__main__ import table
from benchmarks.overload.trial import Trial, judge
from service.tuning.load import Load


def run() -> Load:
    """Overloaded from 1 s to 4 s: each 10 ms one answered after 0.5 s, one refused after 1 ms."""
    load = Load(6.0)
    for number in range(300):
        moment = 1.0 + number / 100
        load.add(moment, 0.5, 200)
        load.add(moment, 0.001, 503)
    return load


def figures(load: Load) -> Trial:
    return judge(load, 100.0, (1.0, 4.0))


def test_a_calm_service_is_found_calm() -> None:
    trial = figures(run())
    assert trial.offered_per_s == pytest.approx(200)
    assert trial.goodput == pytest.approx(1.0, abs=0.01)
    assert trial.accepted_p99_ms == pytest.approx(500)
    assert trial.refusal_p50_ms == pytest.approx(1)
    assert (trial.late, trial.failures, trial.recovery_s) == (0, 0, 0)


def test_late_answers_are_no_goodput() -> None:
    load = run()
    load.latencies_s = [1.2 if status == 200 else 0.001 for status in load.statuses]
    trial = figures(load)
    assert (trial.goodput, trial.late) == (0, 1)


def test_recovery_lasts_until_nobody_is_refused_or_late() -> None:
    load = run()
    load.add(4.5, 0.001, 503)
    load.add(4.7, 1.5, 200)
    load.add(5.0, 0.1, 200)
    assert figures(load).recovery_s == pytest.approx(0.7)


def test_what_is_neither_answered_nor_refused_is_a_failure() -> None:
    load = run()
    load.statuses[0] = 0
    assert figures(load).failures == pytest.approx(1 / 600)


def test_the_table_has_medians_beside_the_aims() -> None:
    text = table([figures(run())])
    assert "| median refusal, ms | 1.00 | 1.00 – 1.00 | < 5 |" in text
