"""Folds that are wrong on purpose: the proof inside `fold` must notice each of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from model_export.errors import VerificationFailed
from model_export.folding import algebra, fold
from model_export.folding.algebra import Affine, Interval
from model_export.folding.rules import spellings
from tests.folding.networks import randomised

REAL = algebra.batch_norm


def without_epsilon(
    w: Tensor | None, b: Tensor | None, m: Tensor, v: Tensor, e: float
) -> tuple[Tensor, Tensor]:
    return REAL(w, b, m, v, 0.0 * e)


def without_mean(w: Tensor | None, b: Tensor | None, m: Tensor, v: Tensor, e: float) -> tuple[Tensor, Tensor]:
    return REAL(w, b, 0 * m, v, e)


def without_beta(w: Tensor | None, b: Tensor | None, m: Tensor, v: Tensor, e: float) -> tuple[Tensor, Tensor]:
    return REAL(w, None, m, v, e)


def unsigned(w: Tensor | None, b: Tensor | None, m: Tensor, v: Tensor, e: float) -> tuple[Tensor, Tensor]:
    return REAL(None if w is None else w.abs(), b, m, v, e)


def wrong_axis(scale: Tensor, shape: Sequence[int], *, transposed: bool, groups: int) -> Tensor:
    return algebra.input_factors(scale, shape, transposed=transposed, groups=groups)


def unturned(interval: Interval, affine: Affine) -> Interval:
    return Interval(affine(interval.low), affine(interval.high))


MUTANTS: dict[str, tuple[Any, str, Callable[..., Any]]] = {
    "ε forgotten": (spellings, "batch_norm", without_epsilon),
    "μ forgotten": (spellings, "batch_norm", without_mean),
    "β forgotten": (spellings, "batch_norm", without_beta),
    "sign ignored": (spellings, "batch_norm", unsigned),
    "wrong axis": (algebra, "output_factors", wrong_axis),
    "clip not turned over": (Interval, "image", unturned),
}


def network() -> nn.Module:
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(4, 4, 3),
        nn.ReLU(),
        nn.BatchNorm2d(4),
        nn.ReLU(),
        nn.Conv2d(4, 4, 3),
        nn.BatchNorm2d(4),
    )
    return randomised(nn.Sequential(*layers), torch.Generator().manual_seed(5))


@pytest.mark.parametrize("name", MUTANTS)
def test_a_wrong_fold_is_refused(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    owner, attribute, mutant = MUTANTS[name]
    inputs = (torch.randn(2, 4, 8, 8, dtype=torch.float64, generator=torch.Generator().manual_seed(1)),)
    fold(network(), inputs)  # the right one passes
    monkeypatch.setattr(owner, attribute, mutant)
    with pytest.raises(VerificationFailed, match="differs by"):
        fold(network(), inputs)
