"""Objectives: what can be stated, and when they are held."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.measurement import Recording, Sample
from loadtest.objective import InvalidObjective, Objective, parse
from loadtest.report import as_document, as_text, conclude


def _samples(count: int = 10, latency_s: float = 0.010, kind: str = "ok") -> list[Sample]:
    return [Sample(0.0, latency_s, "raw", 1, kind, 0, 0, {}) for _ in range(count)]


@pytest.mark.parametrize(
    ("text", "metric", "bound"),
    [
        ("p99<100ms", "p99", 100),
        ("p99.9 <= 0.5s", "p99.9", 500),
        ("errors<0.1%", "errors", 0.001),
        ("throughput>500/s", "throughput", 500),
        ("images >= 2000/s", "images", 2000),
        ("mean<3ms", "mean", 3),
    ],
)
def test_terms(text: str, metric: str, bound: float) -> None:
    (objective,) = parse(text)
    assert objective.metric == metric
    assert objective.bound == pytest.approx(bound)
    assert objective.is_upper == ("<" in text)
    assert objective.is_strict == ("=" not in text)


@pytest.mark.parametrize(
    "text", ["p99", "p99<100", "p98<1ms", "errors<3ms", "throughput>5%", "p99=1ms", "fast", "p99<1ms;max<2ms"]
)
def test_a_slip_is_refused_by_name(text: str) -> None:
    with pytest.raises(InvalidObjective, match="states no objective"):
        parse(f"errors<1%, {text}")


def test_no_terms_no_objectives() -> None:
    assert parse("") == ()


@given(st.floats(0, 1e9), st.floats(0, 1e9), st.booleans(), st.booleans())
def test_a_bound_is_kept_on_one_side_only(
    bound: float, value: float, is_upper: bool, is_strict: bool
) -> None:
    held = Objective("", "p99", is_upper, is_strict, bound).holds(value)
    if value == bound:
        assert held is not is_strict
    else:
        assert held == ((value < bound) == is_upper)


def test_not_a_number_never_holds() -> None:
    assert not Objective("", "p99", True, True, 1.0).holds(math.nan)
    assert not Objective("", "throughput", False, False, 1.0).holds(math.nan)


@pytest.mark.parametrize(
    ("stated", "held"),
    [
        ("", True),
        ("p99<20ms, errors<1%", True),
        ("p99<10ms", False),
        ("p99<=10ms", True),
        ("throughput>=5/s, images<5.1/s", True),
        ("throughput>5/s", False),
        ("p99<20ms, max<1ms", False),
    ],
)
def test_the_verdict_is_that_of_all_objectives(stated: str, held: bool) -> None:
    result = conclude("run", Recording(tuple(_samples()), 2.0), parse(stated))
    assert result.is_held is held
    assert result.exit_code == (0 if held else 1)
    assert as_text(result).endswith(f"verdict: {'held' if held else 'MISSED'}")


@pytest.mark.parametrize("samples", [[], _samples(kind="overloaded")])
def test_a_run_without_answers_holds_nothing(samples: list[Sample]) -> None:
    result = conclude("run", Recording(tuple(samples), 1.0), parse(""))
    assert not result.is_held
    assert as_document(result)["all"]["latency_ms"]["p99"] is None
    assert "nothing was answered" in as_text(result)
    judged = as_text(conclude("run", Recording(tuple(samples), 1.0), parse("p99<1s")))
    assert "measured nothing" in judged
