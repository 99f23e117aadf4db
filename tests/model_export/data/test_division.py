"""Splits: disjoint, complete, stratified, and decided by the seed alone."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from model_export.data.division import divide, thin
from model_export.errors import DataError

CLASS_SIZES = st.lists(st.integers(4, 40), min_size=1, max_size=6)
NAMES = "abcdef"
SHARES = st.lists(st.floats(0.01, 0.3), min_size=1, max_size=3)


def targets_of(sizes: list[int]) -> NDArray[np.int64]:
    targets = np.repeat(np.arange(len(sizes)), sizes)
    return np.random.default_rng(1).permutation(targets)


@given(sizes=CLASS_SIZES, shares=SHARES, seed=st.integers(0, 99))
def test_parts_are_disjoint_complete_and_stratified(sizes: list[int], shares: list[float], seed: int) -> None:
    targets = targets_of(sizes)
    parts = divide(targets, shares, seed, classes=NAMES)
    assert sorted(np.concatenate(parts)) == list(range(len(targets)))
    for part, share in zip(parts, shares, strict=False):
        counts = np.bincount(targets[part], minlength=len(sizes))
        for count, size in zip(counts, sizes, strict=True):
            assert 1 <= count <= max(1, round(size * share))
    assert set(targets[parts[-1]]) == set(targets)


@given(sizes=CLASS_SIZES, seed=st.integers(0, 99))
def test_the_seed_decides(sizes: list[int], seed: int) -> None:
    targets = targets_of([size + 10 for size in sizes])
    first, again, other = (
        divide(targets, [0.3], s, classes=NAMES)[0].tolist() for s in (seed, seed, seed + 1)
    )
    assert first == again
    assert first != other


def test_a_class_too_small_for_every_split_is_refused() -> None:
    with pytest.raises(DataError, match=r"class 'bee' has 2 picture\(s\), too few for 3 splits; at least 3"):
        divide(np.array([0, 0, 0, 1, 1]), [0.1, 0.2], seed=0, classes=("ant", "bee"))
    with pytest.raises(DataError, match=r"there are 2 picture\(s\), too few for 3 splits; at least 3$"):
        divide(np.eye(2, dtype=np.int64), [0.1, 0.2], seed=0, classes=("ant", "bee"))


def test_a_multilabel_matrix_is_divided_too() -> None:
    targets = np.random.default_rng(0).integers(0, 2, (20, 5))
    held_back, rest = divide(targets, [0.25], seed=0, classes=NAMES)
    assert (len(held_back), len(rest)) == (5, 15)


@given(sizes=CLASS_SIZES, data=st.data())
def test_thinning_keeps_the_shares(sizes: list[int], data: st.DataObject) -> None:
    targets = targets_of(sizes)
    limit = data.draw(st.integers(len(sizes), len(targets) + 3))
    kept = thin(targets, limit, seed=0)
    assert len(kept) == min(limit, len(targets))
    counts = np.bincount(targets[kept], minlength=len(sizes))
    assert counts.min() >= 1
    np.testing.assert_array_less(abs(counts - np.array(sizes) * len(kept) / len(targets)), len(sizes) + 1)


def test_no_limit_keeps_everything() -> None:
    assert thin(np.array([0, 1, 1]), None, seed=0).tolist() == [0, 1, 2]


def test_a_limit_below_the_number_of_classes_is_refused() -> None:
    with pytest.raises(DataError, match="--limit 2: there are 3 classes"):
        thin(np.array([0, 1, 2, 0]), 2, seed=0)
