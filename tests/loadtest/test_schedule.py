"""Arrivals: fixed beforehand, seeded, and as many as the rate says."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loadtest.schedule import SHAPES, Phase, Shape, arrivals, phases, starts

phase_lists = st.lists(
    st.builds(Phase, rate_per_s=st.floats(0.5, 200), duration_s=st.floats(0.1, 5)), min_size=1, max_size=5
)


@given(phase_lists, st.integers(0, 100))
def test_arrivals_ascend_within_the_whole_duration(listed: list[Phase], seed: int) -> None:
    moments = arrivals(listed, seed)
    assert moments == sorted(moments)
    assert moments == arrivals(listed, seed)
    assert all(0 < moment < sum(phase.duration_s for phase in listed) for moment in moments)


def test_each_phase_has_its_own_rate() -> None:
    listed = [Phase(100, 10), Phase(400, 10)]
    assert starts(listed) == [0, 10]
    moments = arrivals(listed, seed=0)
    slow = sum(moment < 10 for moment in moments)
    # Five standard deviations of a Poisson count.
    assert abs(slow - 1000) < 5 * 1000**0.5
    assert abs(len(moments) - slow - 4000) < 5 * 4000**0.5


@pytest.mark.parametrize("shape", SHAPES)
def test_a_shape_lasts_as_long_as_asked(shape: Shape) -> None:
    listed = phases(shape, rate_per_s=100, duration_s=20)
    assert sum(phase.duration_s for phase in listed) == pytest.approx(20)
    assert listed[0].rate_per_s == 100
    assert max(phase.rate_per_s for phase in listed) == (400 if shape == "spike" else 100)
