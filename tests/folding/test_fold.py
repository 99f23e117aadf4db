"""The public door: shapes of the result, refusals, and the article's own order of layers."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from xml.etree import ElementTree

import pytest
import torch
from torch import Tensor, nn
from torch.export import Dim
from torch.utils import _pytree as pytree

from model_export.errors import ModelError, VerificationFailed
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


class ForOneBatch(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(2, -1)


class Choosing(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x if x.sum() > 0 else -x


@pytest.mark.parametrize(
    ("model", "meaning"), [(ForOneBatch(), "batches of one size"), (Choosing(), "`torch.where` choose")]
)
def test_what_cannot_be_traced_is_said_in_one_line(
    model: nn.Module, meaning: str, capfd: pytest.CaptureFixture[str]
) -> None:
    sentence = rf"{type(model).__name__} cannot be exported: [^\n]*{meaning}[^\n]*"
    with pytest.raises(ModelError, match=f"^{sentence}$"):
        fold(model, (torch.randn(2, 1, 5, 5),), dynamic_shapes=({0: Dim("batch")},))
    assert capfd.readouterr() == ("", "")


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


class Branching(nn.Module):
    """A convolution, and a BatchNorm on a condition."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__()
        self.conv, self.norm = nn.Conv2d(1, 3, 3), norm

    def forward(self, x: Tensor) -> Tensor:
        """norm(conv(x)) if that is positive on average, else conv(x)."""
        y = self.conv(x)
        chosen: Tensor = torch.cond(y.mean() > 0, self.norm, torch.clone, (y,))
        return chosen


def test_one_in_a_branch_is_kept_and_told() -> None:
    model, images = randomized(Branching(nn.BatchNorm2d(3))).requires_grad_(False), torch.randn(2, 1, 5, 5)
    result = fold(model, (images,))
    (fate,) = result.report
    assert (fate.outcome, fate.reason) == ("kept", "it stands in the branch of a conditional")
    for sign in (1, -1):
        torch.testing.assert_close(result.program.module()(sign * images), model(sign * images))


def test_one_in_a_branch_is_refused_as_well() -> None:
    norm = nn.BatchNorm2d(3, track_running_stats=False)
    with pytest.raises(FoldRefused, match="no running statistics"):
        fold(Branching(norm).eval().requires_grad_(False), (torch.randn(2, 1, 5, 5),))


class Counting(nn.Module):
    """A layer whose result depends on how often it was called."""

    calls: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(nn.Conv2d(1, 3, 3), nn.BatchNorm2d(3))
        self.register_buffer("calls", torch.zeros((), dtype=torch.float64))

    def forward(self, x: Tensor) -> Tensor:
        """layers(x), so many times."""
        self.calls.add_(1)
        scaled: Tensor = self.layers(x) * self.calls
        return scaled


def test_a_buffer_that_the_program_writes_is_no_constant() -> None:
    model, images = randomized(Counting()).double(), torch.randn(2, 1, 5, 5, dtype=torch.float64)
    program = fold(model, (images,)).program.module()
    assert model.calls == 0
    for _ in range(3):
        torch.testing.assert_close(program(images), copy.deepcopy(model)(images))
        model.calls.add_(1)


def test_a_part_without_channels_is_no_obstacle() -> None:
    model = randomized(nn.Sequential(nn.Conv2d(2, 3, 1), nn.BatchNorm2d(3))).double()

    class Joined(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers, self.norm = model, randomized(nn.BatchNorm2d(3)).double()

        def forward(self, x: Tensor) -> Tensor:
            joined: Tensor = self.norm(torch.cat([self.layers(x), x[:, :0]], 1))
            return joined

    joined, images = Joined(), torch.randn(2, 2, 4, 4, dtype=torch.float64)
    result = fold(joined, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    assert result.report.affine_maps_left == 0
    torch.testing.assert_close(result.program.module()(images), joined(images))


def test_a_weight_that_half_precision_cannot_hold_is_refused() -> None:
    norm = nn.BatchNorm2d(4, eps=1e-12)
    assert norm.running_var is not None
    norm.running_var.fill_(1e-7)
    nn.init.constant_(norm.weight, 300.0)
    images = torch.full((2, 4, 5, 5), 1e-4, dtype=torch.float16)
    with pytest.raises(
        VerificationFailed, match=r"does not fit into torch\.float16: fold the model in float32"
    ):
        fold(nn.Sequential(norm, nn.Conv2d(4, 6, 3)).eval().half(), (images,))


def test_huge_scales_and_many_readers_are_no_obstacle() -> None:
    norms = [nn.BatchNorm2d(3, eps=0.0) for _ in range(18)]

    class Heads(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv, self.norms = nn.Conv2d(1, 3, 3), nn.ModuleList(norms)

        def forward(self, x: Tensor) -> Tensor:
            y = self.conv(x)
            return torch.stack([nn.functional.gelu(norm(y)) for norm in self.norms])

    model, images = randomized(Heads()).double(), torch.randn(2, 1, 5, 5, dtype=torch.float64)
    nn.init.constant_(norms[0].weight, 1e15)
    result = fold(model, (images,))
    assert result.report.affine_maps_left == 17
    torch.testing.assert_close(result.program.module()(images), model(images))


@pytest.mark.parametrize("clip", [torch.maximum, lambda y, ends: torch.clamp(y, ends, ends + 1)])
def test_a_clip_that_broadcasts_its_input_is_none(clip: Callable[[Tensor, Tensor], Tensor]) -> None:
    class Clipping(nn.Module):
        ends: Tensor

        def __init__(self) -> None:
            super().__init__()
            self.before = nn.Sequential(nn.Conv2d(2, 1, 3), nn.BatchNorm2d(1))
            self.after = nn.BatchNorm2d(6)
            self.register_buffer("ends", torch.linspace(-1, 1, 6).reshape(1, 6, 1, 1))

        def forward(self, x: Tensor) -> Tensor:
            clipped: Tensor = self.after(clip(self.before(x), self.ends))
            return clipped

    model, images = randomized(Clipping()).double(), torch.randn(2, 2, 5, 5, dtype=torch.float64)
    result = fold(model, (images,))
    torch.testing.assert_close(result.program.module()(images), model(images))


def test_who_reads_only_a_size_takes_any_form() -> None:
    class Filled(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.layers = nn.Sequential(nn.Conv2d(2, 3, 3), nn.BatchNorm2d(3))

        def forward(self, x: Tensor) -> Tensor:
            y = self.layers(x)
            filled: Tensor = y + torch.ones_like(y) * 2 - torch.full_like(y, 0.5)
            return filled

    model, images = randomized(Filled()).double(), torch.randn(2, 2, 5, 5, dtype=torch.float64)
    result = fold(model, (images,))
    torch.testing.assert_close(result.program.module()(images), model(images))


def test_a_pool_that_cuts_its_last_windows_off_is_seen_at_every_size() -> None:
    pool = nn.AvgPool2d(2, 2, ceil_mode=True, divisor_override=4)
    layers = nn.Conv2d(2, 3, 3), nn.ReLU(), nn.BatchNorm2d(3), pool, nn.Conv2d(3, 2, 1)
    model = randomized(nn.Sequential(*layers)).double()
    sizes = ({0: torch.export.Dim.DYNAMIC, 2: torch.export.Dim.DYNAMIC, 3: torch.export.Dim.DYNAMIC},)
    program = fold(
        model, (torch.randn(2, 2, 8, 10, dtype=torch.float64),), dynamic_shapes=sizes
    ).program.module()
    for height, width in ((8, 10), (9, 10), (9, 13)):
        images = torch.randn(3, 2, height, width, dtype=torch.float64)
        torch.testing.assert_close(program(images), model(images))


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
