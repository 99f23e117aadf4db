"""The served graph is the network with its normalisation inside, in few and fast operators."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from model_export import export
from model_export.errors import FoldRefused, ModelError
from model_export.evaluation import open_session, predict
from service.artifact import ColourOrder, InputContract, Task


def contract(channels: int = 3, side: int = 8, **changes: object) -> InputContract:
    """A contract whose mean and std differ between channels."""
    numbers = np.arange(channels)
    fields: dict[str, object] = {
        "height": side,
        "width": side,
        "channels": channels,
        "colour_order": ColourOrder.GRAY if channels == 1 else ColourOrder.RGB,
        "fill": (0,) * channels,
        "mean": tuple(0.3 + 0.1 * numbers),
        "std": tuple(0.2 + 0.05 * numbers),
    }
    return InputContract.model_validate(fields | changes)


def program_of(module: nn.Module, channels: int = 3, side: int = 8) -> ExportedProgram:
    example = torch.randn(2, channels, side, side)
    return torch.export.export(module, (example,), dynamic_shapes=({0: Dim("batch")},))


def served(
    module: nn.Module, inputs: InputContract, path: Path, task: Task = Task.MULTICLASS
) -> tuple[ir.Model, int]:
    """Writes the model file of ``module``; its graph and the number of lowered maps."""
    network = export.network_graph(program_of(module.eval(), inputs.channels, inputs.height))
    lowered = export.lower(network)
    graph = export.served_graph(network, inputs, task, 5)
    export.write_model_file(graph, path)
    return graph, lowered


def operators(graph: ir.Model) -> list[str]:
    return [node.op_type for node in graph.graph]


def pictures(inputs: InputContract, count: int = 5) -> NDArray[np.uint8]:
    shape = (count, inputs.height, inputs.width, inputs.channels)
    return np.random.default_rng(0).integers(0, 256, shape, dtype=np.uint8)


class Affine(nn.Module):
    """scale · x + shift with one value a channel, written as plain arithmetic."""

    def __init__(self, channels: int, *, scale: bool = True, shift: bool = True) -> None:
        super().__init__()
        self.scale = nn.Buffer(torch.randn(channels, 1, 1)) if scale else None
        self.shift = nn.Buffer(torch.randn(1, channels, 1, 1)) if shift else None

    def forward(self, x: Tensor) -> Tensor:
        x = x if self.scale is None else self.scale * x
        return x if self.shift is None else x + self.shift


def network(*middle: nn.Module, channels: int = 3, padding: int = 1) -> nn.Sequential:
    torch.manual_seed(0)
    head = (nn.AdaptiveAvgPool2d(2), nn.Flatten(), nn.Linear(16, 5))
    return nn.Sequential(nn.Conv2d(channels, 4, 3, padding=padding), *middle, *head)


FIRST_LAYERS = {
    "convolution": lambda: network(),
    "strided convolution": lambda: nn.Sequential(nn.Conv2d(3, 4, 3, 2, 1), nn.Flatten(), nn.Linear(64, 5)),
    "reflecting convolution": lambda: nn.Sequential(
        nn.Conv2d(3, 4, 3, padding=1, padding_mode="reflect"), nn.Flatten(), nn.Linear(256, 5)
    ),
    "depthwise convolution": lambda: nn.Sequential(
        nn.Conv2d(3, 6, 3, padding=1, groups=3), nn.Flatten(), nn.Linear(384, 5)
    ),
    "linear": lambda: nn.Sequential(nn.Flatten(), nn.Linear(192, 5)),
    "pooling": lambda: nn.Sequential(nn.AvgPool2d(3, 1, 1), nn.Flatten(), nn.Linear(192, 5)),
    "activation": lambda: nn.Sequential(nn.ReLU(), nn.Flatten(), nn.Linear(192, 5)),
}


class TwoReaders(nn.Module):
    """The input is read twice, so its scale cannot go into one convolution's weights."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Conv2d(3, 5, 3, padding=1)
        self.second = nn.Conv2d(3, 5, 1)

    def forward(self, x: Tensor) -> Tensor:
        product: Tensor = self.first(x) * self.second(x)
        return product.mean((2, 3))


class SharedFirstWeight(nn.Module):
    """One convolution called on the input and on its own result."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 3, 3, padding=1)
        self.head = nn.Linear(192, 5)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.conv(self.conv(x)).flatten(1))
        return logits


@pytest.mark.parametrize("first", [*FIRST_LAYERS, "two readers", "shared weight"])
@pytest.mark.parametrize("optimised", [False, True])
def test_normalisation_is_exact_whatever_reads_it_first(first: str, optimised: bool, tmp_path: Path) -> None:
    torch.manual_seed(1)
    special = {"two readers": TwoReaders, "shared weight": SharedFirstWeight}
    module = special[first]() if first in special else FIRST_LAYERS[first]()
    inputs = contract()
    served(module, inputs, tmp_path / "model.onnx")
    images = pictures(inputs)
    logits = predict(open_session(tmp_path / "model.onnx", optimised=optimised), images, inputs)
    np.testing.assert_allclose(logits, predict(module, images, inputs), rtol=0, atol=2e-5)


def test_the_scale_goes_into_the_first_convolution_and_only_the_mean_stays(tmp_path: Path) -> None:
    graph, _ = served(network(), contract(), tmp_path / "model.onnx")
    assert operators(graph)[:4] == ["Transpose", "Cast", "Sub", "Conv"]
    one_channel, _ = served(network(channels=1), contract(1), tmp_path / "model.onnx")
    assert operators(one_channel)[:4] == ["Reshape", "Cast", "Sub", "Conv"]
    no_mean = contract(mean=(0, 0, 0))
    assert operators(served(network(), no_mean, tmp_path / "model.onnx")[0])[:3] == [
        "Transpose",
        "Cast",
        "Conv",
    ]


def test_input_and_outputs_are_those_of_the_contract(tmp_path: Path) -> None:
    served(network(), contract(), tmp_path / "model.onnx")
    session = open_session(tmp_path / "model.onnx")
    assert [(i.name, i.type, i.shape) for i in session.get_inputs()] == [
        ("images", "tensor(uint8)", ["batch", 8, 8, 3])
    ]
    assert [(o.name, o.type, o.shape) for o in session.get_outputs()] == [
        ("logits", "tensor(float)", ["batch", 5]),
        ("probabilities", "tensor(float)", ["batch", 5]),
    ]


@pytest.mark.parametrize("task", list(Task))
def test_probabilities_are_those_of_the_task(task: Task, tmp_path: Path) -> None:
    inputs = contract()
    served(network(), inputs, tmp_path / "model.onnx", task)
    session = open_session(tmp_path / "model.onnx")
    logits, probabilities = session.run(None, {"images": pictures(inputs)})
    tensor = torch.from_numpy(logits)
    expected = tensor.softmax(1) if task is Task.MULTICLASS else tensor.sigmoid()
    np.testing.assert_allclose(probabilities, expected, atol=1e-6)


@pytest.mark.parametrize(
    ("affine", "lowered"),
    [
        (Affine(4), 1),
        (Affine(4, shift=False), 1),
        (Affine(4, scale=False), 1),
        (nn.Sequential(Affine(4), nn.ReLU(), Affine(4)), 2),
        (nn.Sequential(nn.MaxPool2d(2), Affine(4), nn.ReLU()), 1),
        (nn.ReLU(), 0),
    ],
)
def test_an_affine_map_that_stayed_becomes_one_batch_normalisation(
    affine: nn.Module, lowered: int, tmp_path: Path
) -> None:
    module, inputs = network(affine), contract()
    graph, count = served(module, inputs, tmp_path / "model.onnx")
    assert count == lowered == operators(graph).count("BatchNormalization")
    assert "Mul" not in operators(graph)
    assert "Add" not in operators(graph)
    images = pictures(inputs)
    for optimised in (False, True):
        logits = predict(open_session(tmp_path / "model.onnx", optimised=optimised), images, inputs)
        np.testing.assert_allclose(logits, predict(module, images, inputs), rtol=0, atol=2e-5)


class Clamp(nn.Module):
    """A clip of each channel to its own interval."""

    def __init__(self, low: Sequence[float], high: Sequence[float]) -> None:
        super().__init__()
        self.low = nn.Buffer(torch.tensor(low).view(1, -1, 1, 1))
        self.high = nn.Buffer(torch.tensor(high).view(1, -1, 1, 1))

    def forward(self, x: Tensor) -> Tensor:
        return x.clamp(self.low, self.high)


INFINITE = [float("inf")] * 4


@pytest.mark.parametrize(
    ("clamp", "expected"),
    [
        (Clamp([0.0] * 4, INFINITE), {"Relu"}),
        (Clamp([0.1, 0.0, -0.2, 0.0], INFINITE), {"Max"}),
        (Clamp([-each for each in INFINITE], [0.1, 0.2, 0.3, 0.4]), {"Min"}),
        (Clamp([0.0] * 4, [0.1, 0.2, 0.3, 0.4]), {"Relu", "Min"}),
        (Clamp([-0.1, 0.0, 0.1, 0.0], [0.1, 0.2, 0.3, 0.4]), {"Max", "Min"}),
        (Clamp([-each for each in INFINITE], INFINITE), set()),
    ],
)
def test_a_clamp_keeps_only_the_ends_that_it_has(
    clamp: nn.Module, expected: set[str], tmp_path: Path
) -> None:
    module, inputs = network(clamp), contract()
    graph, _ = served(module, inputs, tmp_path / "model.onnx")
    assert {"Relu", "Max", "Min", "CastLike"} & set(operators(graph)) == expected
    images = pictures(inputs)
    logits = predict(open_session(tmp_path / "model.onnx"), images, inputs)
    np.testing.assert_allclose(logits, predict(module, images, inputs), rtol=0, atol=2e-5)


class GlobalMean(nn.Module):
    """The mean over height and width, which many networks end with."""

    def __init__(self, keepdim: bool) -> None:
        super().__init__()
        self.keepdim = keepdim

    def forward(self, x: Tensor) -> Tensor:
        return x.mean((2, 3), keepdim=self.keepdim)


@pytest.mark.parametrize("pool", [nn.AdaptiveAvgPool2d(1), GlobalMean(True), GlobalMean(False)])
def test_a_mean_over_positions_stays_in_the_fast_layout(pool: nn.Module, tmp_path: Path) -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(3, 4, 3), pool, nn.Flatten(), nn.Linear(4, 5))
    inputs = contract()
    graph, _ = served(module, inputs, tmp_path / "model.onnx")
    assert "GlobalAveragePool" in operators(graph)
    assert "ReduceMean" not in operators(graph)
    images = pictures(inputs)
    logits = predict(open_session(tmp_path / "model.onnx"), images, inputs)
    np.testing.assert_allclose(logits, predict(module, images, inputs), rtol=0, atol=2e-5)


class Residual(nn.Module):
    """Adds a value to another value, which is no affine map with constants."""

    def forward(self, x: Tensor) -> Tensor:
        return x + x.relu() * x


def test_arithmetic_between_values_is_left_alone(tmp_path: Path) -> None:
    graph, count = served(network(Residual()), contract(), tmp_path / "model.onnx")
    assert count == 0
    assert {"Mul", "Add"} <= set(operators(graph))


def test_a_map_over_positions_is_not_taken_for_one_over_channels(tmp_path: Path) -> None:
    class Positions(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Buffer(torch.randn(8))  # broadcasts along W

        def forward(self, x: Tensor) -> Tensor:
            scaled: Tensor = x * self.weight
            return scaled

    module = nn.Sequential(nn.Conv2d(3, 8, 3, padding=1), Positions(), nn.Flatten(), nn.Linear(512, 5))
    assert served(module, contract(), tmp_path / "model.onnx")[1] == 0


def test_flattening_has_a_constant_target(tmp_path: Path) -> None:
    graph, _ = served(network(), contract(), tmp_path / "model.onnx")
    assert not {"Shape", "Concat", "Squeeze", "Constant"} & set(operators(graph))


def test_our_optimiser_is_the_only_one(tmp_path: Path) -> None:
    """An unfolded BatchNorm is still there: nothing but the fold removes one."""
    graph, _ = served(network(nn.BatchNorm2d(4)), contract(), tmp_path / "model.onnx")
    assert "BatchNormalization" in operators(graph)


@pytest.mark.parametrize(
    ("norm", "training", "reason"),
    [
        (nn.BatchNorm2d(4), True, "training mode"),
        (nn.BatchNorm2d(4, track_running_stats=False), False, "no running statistics"),
    ],
)
@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch copies its own deprecated classes
@pytest.mark.parametrize("decomposed", [False, True])
def test_a_batch_norm_that_looks_at_the_batch_is_refused_by_name(
    norm: nn.Module, training: bool, reason: str, decomposed: bool
) -> None:
    module = network(norm).eval()
    module[1].train(training)
    program = program_of(module)
    if decomposed:
        program = program.run_decompositions()
    with pytest.raises(FoldRefused, match=rf"^1: .*{reason}"):
        export.network_graph(program)


def test_a_group_norm_is_no_batch_norm(tmp_path: Path) -> None:
    served(network(nn.GroupNorm(2, 4), nn.InstanceNorm2d(4)), contract(), tmp_path / "model.onnx")


def test_a_network_with_two_outputs_is_refused() -> None:
    class Two(nn.Module):
        def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
            return x.mean((2, 3)), x

    with pytest.raises(ModelError, match=r"1 input\(s\) and 2 output\(s\)"):
        export.network_graph(program_of(Two()))


def test_a_network_for_other_pictures_is_refused() -> None:
    graph = export.network_graph(program_of(network().eval(), side=8))
    with pytest.raises(ModelError, match="8"):
        export.served_graph(graph, contract(side=9), Task.MULTICLASS, 5)


def test_the_file_tells_nothing_about_the_machine(tmp_path: Path) -> None:
    served(network(nn.BatchNorm2d(4)), contract(), tmp_path / "model.onnx")
    data = (tmp_path / "model.onnx").read_bytes()
    for trace in (b"site-packages", b".py", str(Path.home()).encode(), b"stack_trace"):
        assert trace not in data


def test_nodes_are_named_after_modules(tmp_path: Path) -> None:
    graph, _ = served(network(), contract(), tmp_path / "model.onnx")
    names = [node.name for node in graph.graph]
    assert "0/conv2d" in names
    assert "3/linear" in names
    assert len(set(names)) == len(names)


def test_the_checksum_is_the_one_of_sha256sum(tmp_path: Path) -> None:
    graph = export.network_graph(program_of(network().eval()))
    export.served_graph(graph, contract(), Task.MULTICLASS, 5)
    digest = export.write_model_file(graph, tmp_path / "model.onnx")
    assert (tmp_path / "model.onnx.sha256").read_text() == f"{digest}  model.onnx\n"


def test_a_file_that_is_no_model_is_refused(tmp_path: Path) -> None:
    (tmp_path / "model.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelError, match=r"model\.onnx: not an ONNX file"):
        export.read_model_file(tmp_path / "model.onnx")


def test_the_checker_is_asked(tmp_path: Path) -> None:
    graph = export.network_graph(program_of(network().eval()))
    export.served_graph(graph, contract(), Task.MULTICLASS, 5)
    next(iter(graph.graph)).op_type = "NoSuchOperator"
    with pytest.raises(ModelError, match="checker"):
        export.write_model_file(graph, tmp_path / "model.onnx")
    assert not (tmp_path / "model.onnx").exists()
