"""The public door: shapes of the result, refusals, and the article's own order of layers."""

from __future__ import annotations

import json
from xml.etree import ElementTree

import pytest
import torch
from torch import nn
from torch.utils import _pytree as pytree

from model_export.folding import FoldRefused, count_affine_maps, fold
from model_export.folding.trace import capture
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


def test_a_kept_one_says_where_it_stands() -> None:
    in_place = randomized(nn.Sequential(nn.Conv2d(1, 3, 3), nn.GELU(), nn.BatchNorm2d(3), nn.GELU()))
    (fate,) = fold(in_place, (torch.randn(2, 1, 5, 5),)).report
    assert (fate.outcome, fate.where, fate.form) == ("kept", "2", "multiply and add")


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


def test_a_refused_one_stays_in_place_if_that_is_allowed() -> None:
    torch.manual_seed(0)
    model = nn.Sequential(
        nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3), nn.BatchNorm2d(3, track_running_stats=False)
    ).eval()
    images = torch.randn(2, 1, 5, 5)
    result = fold(model, (images,), allow_refusals=True)
    assert {fate.name: fate.outcome for fate in result.report} == {"1": "folded", "2": "refused"}
    torch.testing.assert_close(result.program.module()(images), model(images), rtol=1e-4, atol=1e-5)


def test_one_called_twice_has_one_fate() -> None:
    norm, conv = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3, padding=1)
    model = randomized(nn.Sequential(conv, norm, nn.GELU(), conv, norm, nn.GELU())).double()
    result = fold(model, (torch.randn(2, 3, 5, 5, dtype=torch.float64),))
    (fate,) = result.report
    assert (fate.name, fate.outcome) == ("1", "folded")


def test_the_report_reads_as_text_json_and_picture() -> None:
    report = fold(article(), (torch.randn(2, 1, 8, 8, dtype=torch.float64),)).report
    assert "3 BatchNorm(s): 3 folded, 0 kept, 0 refused; 0 affine map(s) left (fewest)" in str(report)
    content = json.loads(report.to_json())
    assert [fate["name"] for fate in content["fates"]] == ["2", "7", "13"]
    assert content["savings"]["operators"] > 0
    assert content["savings"]["elementwise_operations"] == 2 * (4 * 64 + 6 * 16 + 8)
    picture = ElementTree.fromstring(report.picture())  # noqa: S314  # our own text
    boxes = [element for element in picture if element.tag.endswith("rect")]
    assert len(boxes) == len(report.before) + len(report.after)


def test_a_program_is_counted_as_it_stands() -> None:
    model, images = article(), torch.randn(2, 1, 8, 8, dtype=torch.float64)
    assert count_affine_maps(capture(model, (images,), None)) == 3
    assert count_affine_maps(fold(model, (images,)).program) == 0
