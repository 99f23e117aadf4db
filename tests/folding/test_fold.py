"""The public door: shapes of the result, refusals, and the article's own order of layers."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from model_export.folding import FoldRefused, fold
from model_export.records import Objective


def randomized(model: nn.Module, seed: int = 0) -> nn.Module:
    """The model in eval mode with random statistics and both signs of γ."""
    generator = torch.Generator().manual_seed(seed)
    for module in model.modules():
        if isinstance(module, nn.modules.batchnorm._BatchNorm) and module.running_mean is not None:
            for tensor in (module.weight, module.bias, module.running_mean):
                tensor.data.normal_(generator=generator)
            assert module.running_var is not None
            module.running_var.uniform_(0.3, 2.0, generator=generator)
    return model.eval()


def article() -> nn.Module:
    return randomized(
        nn.Sequential(
            nn.Conv2d(1, 4, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(4),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(4, 6, 3, padding=1),
            nn.ReLU(),
            nn.BatchNorm2d(6),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(6 * 4, 8),
            nn.ReLU(),
            nn.BatchNorm1d(8),
            nn.ReLU(),
            nn.Linear(8, 10),
        )
    ).double()


@pytest.mark.parametrize("objective", ["fewest", "speed"])
def test_article_order_is_exact(objective: Objective) -> None:
    model = article()
    images = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    result = fold(model, (images,), objective=objective)
    expected = model(images)
    error = (result.program.module()(images) - expected).abs().max() / expected.abs().max()
    assert error <= 1e-12
    if objective == "fewest":
        assert [fate.outcome for fate in result.report] == ["folded"] * 3
    assert [fate.name for fate in result.report] == ["2", "7", "13"]


def test_dynamic_batch_survives() -> None:
    model = article()
    images = torch.randn(2, 1, 8, 8, dtype=torch.float64)
    result = fold(model, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    many = torch.randn(5, 1, 8, 8, dtype=torch.float64)
    torch.testing.assert_close(result.program.module()(many), model(many))


@pytest.mark.parametrize(
    ("norm", "reason"),
    [
        (nn.BatchNorm2d(3).train(), "training mode"),
        (nn.BatchNorm2d(3, track_running_stats=False).eval(), "no running statistics"),
    ],
)
def test_refuses_by_name(norm: nn.Module, reason: str) -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), norm)
    with pytest.raises(FoldRefused, match=f"1: {reason}"):
        fold(model, (torch.randn(2, 1, 5, 5),))


def test_model_is_not_modified() -> None:
    model = article()
    before = pytree.tree_map(torch.clone, dict(model.state_dict()))
    fold(model, (torch.randn(2, 1, 8, 8, dtype=torch.float64),))
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
