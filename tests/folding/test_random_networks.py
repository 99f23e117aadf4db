"""Random compositions of the covered operators: a fold changes nothing, and never adds a map."""

from __future__ import annotations

import hypothesis
import pytest
import torch
from hypothesis import HealthCheck, Phase, given, note, settings
from hypothesis import strategies as st

from model_export.folding import count_affine_maps, fold
from model_export.folding.trace import capture
from model_export.records import Objective
from tests.folding.networks import CHANNELS, JOINS, PARTS, SIZED, composed

Parts = list[str | tuple[str, list[str], list[str]]]

branch = st.lists(st.sampled_from(SIZED), max_size=3)
part = st.one_of(
    st.sampled_from(tuple(PARTS)),
    st.just("norm"),  # what this is about
    st.tuples(st.sampled_from(tuple(JOINS)), branch, branch),
)
SHARDS = 5  # each a test of its own, so that they share the processors
NETWORKS = 3  # a shard


@pytest.mark.timeout(600)  # an export takes half a second, and as long again on a busy machine
@pytest.mark.parametrize("shard", range(SHARDS))
def test_a_random_network_stays_what_it_is(shard: int) -> None:
    @hypothesis.seed(shard)
    @settings(
        max_examples=NETWORKS,
        deadline=None,
        database=None,
        # Shrinking a network costs an export a step; a failure prints its parts, which is enough.
        phases=(Phase.explicit, Phase.generate),
        suppress_health_check=[HealthCheck.too_slow],
    )
    @given(
        names=st.lists(part, min_size=2, max_size=7),
        seed=st.integers(0, 2**16),
        objective=st.sampled_from(("fewest", "speed")),
    )
    def check(names: Parts, seed: int, objective: Objective) -> None:
        stays_what_it_is(names, seed, objective)

    check()


def stays_what_it_is(names: Parts, seed: int, objective: Objective) -> None:
    """A fold of the network of these parts gives the same outputs, and adds no affine map."""
    note(f"{objective} {seed} {names}")
    model = composed(names, seed)
    images = torch.randn(
        2, CHANNELS, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed)
    )
    batch = ({0: torch.export.Dim("batch")},)
    result = fold(model, (images,), objective=objective, dynamic_shapes=batch)
    others = torch.randn(
        3, CHANNELS, 6, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(seed + 1)
    )
    with torch.no_grad():
        expected, folded = model(others), result.program.module()(others)
    assert (folded - expected).abs().max() <= 1e-10 * expected.abs().max()
    assert result.report.error <= 1e-10
    left = count_affine_maps(result.program)
    assert left == result.report.affine_maps_left
    assert left <= count_affine_maps(capture(model, (images,), batch))
