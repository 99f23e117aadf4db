"""Cost figures against hand-computed ones and against torch's own counter."""

from __future__ import annotations

import io
from pathlib import Path

import pytest
import torch
from rich.console import Console
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from model_export import cost
from model_export.data import ImageDataset
from model_export.records import CostTable, LayerTime, SpeedUp


def program_of(module: nn.Module, *shape: int) -> ExportedProgram:
    example = torch.randn(2, *shape)
    return torch.export.export(module.eval(), (example,), dynamic_shapes=({0: Dim("batch")},))


FIVE = nn.Sequential(
    nn.Conv2d(3, 8, 3, padding=1),  # 8·10·10 outputs, 3·3·3 each
    nn.BatchNorm2d(8),
    nn.Conv2d(8, 8, 3, stride=2, padding=1, groups=4, bias=False),  # 8·5·5 outputs, 2·3·3 each
    nn.ConvTranspose2d(8, 4, 2, stride=2),  # 8·5·5 inputs, 4·2·2 each
    nn.Flatten(),
    nn.Linear(400, 10),  # 10 outputs, 400 each
)

BY_HAND = {
    # operator: parameters, weight bytes, activation bytes, MACs, output shape
    "0": ("conv2d", 3 * 8 * 9 + 8, 4 * 224, 4 * 800, 800 * 27, (8, 10, 10)),
    "1": ("batch_norm", 16, 4 * 32, 4 * 800, 0, (8, 10, 10)),  # γ, β are learnt; μ, σ² are read too
    "2": ("conv2d", 8 * 2 * 9, 4 * 144, 4 * 200, 200 * 18, (8, 5, 5)),
    "3": ("conv_transpose2d", 8 * 4 * 4 + 4, 4 * 132, 4 * 400, 200 * 16, (4, 10, 10)),
    "4": ("flatten", 0, 0, 0, 0, (400,)),  # the same memory under another shape
    "5": ("linear", 400 * 10 + 10, 4 * 4010, 4 * 10, 4000, (10,)),
}


@pytest.mark.parametrize("position", range(6))
def test_each_layer_costs_what_it_costs_by_hand(position: int) -> None:
    layer = cost.count(program_of(FIVE, 3, 10, 10)).layers[position]
    figures = (layer.operator, layer.parameters, layer.weight_bytes)
    assert (*figures, layer.activation_bytes, layer.macs, layer.output_shape) == BY_HAND[layer.name]
    assert layer.known


def test_totals_are_sums() -> None:
    table = cost.count(program_of(FIVE, 3, 10, 10))
    assert table.parameters == sum(parameter.numel() for parameter in FIVE.parameters())
    assert table.macs == 800 * 27 + 200 * 18 + 200 * 16 + 4000


class Attention(nn.Module):
    """Tokens of patches, self-attention, matrix products: what a vision transformer is made of."""

    def __init__(self) -> None:
        super().__init__()
        self.patches = nn.Conv2d(3, 16, 4, 4)
        self.query_key_value = nn.Linear(16, 48)
        self.mix = nn.Parameter(torch.randn(4, 4))
        self.head = nn.Linear(16, 5)

    def forward(self, x: Tensor) -> Tensor:
        tokens = self.patches(x).flatten(2).transpose(1, 2)
        heads = self.query_key_value(tokens).unflatten(2, (3, 2, 8)).permute(2, 0, 3, 1, 4)
        attended = nn.functional.scaled_dot_product_attention(heads[0], heads[1], heads[2])
        mixed = torch.matmul(self.mix, attended)
        logits: Tensor = self.head(mixed.transpose(1, 2).flatten(2).mean(1))
        return logits


class Merging(nn.Module):
    """The batch in other places: merged with positions, with windows and heads, and behind the length."""

    def __init__(self) -> None:
        super().__init__()
        self.mix = nn.Linear(3, 8)
        self.attention = nn.MultiheadAttention(8, 2)
        self.head = nn.Linear(8, 5)

    def forward(self, x: Tensor) -> Tensor:
        batch, channels, height, width = x.shape
        positions = self.mix(x.permute(0, 2, 3, 1).reshape(-1, channels))
        windows = positions.view(batch * 4, height * width // 4, 8)
        inside = nn.functional.scaled_dot_product_attention(windows, windows, windows)
        tokens = inside.reshape(batch, height * width, 8).transpose(0, 1)
        attended, _ = self.attention(tokens, tokens, tokens, need_weights=False)
        logits: Tensor = self.head(attended.mean(0))
        return logits


class Einstein(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(5, 192))

    def forward(self, x: Tensor) -> Tensor:
        similar = torch.einsum("nchw, ndhw -> ncd", x, x)
        logits = torch.einsum("nd,kd->nk", x.flatten(1), self.weight)
        return logits + similar.flatten(1)[:, :5]


class OneDimensional(nn.Sequential):
    def __init__(self) -> None:
        super().__init__(
            nn.Flatten(2), nn.Conv1d(3, 4, 3), nn.ConvTranspose1d(4, 2, 3), nn.Flatten(), nn.Linear(128, 5)
        )


NETWORKS = {
    "five": FIVE,
    "attention": Attention(),
    "merging": Merging(),
    "einsum": Einstein(),
    "1d": OneDimensional(),
}


@pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")  # torch copies its own deprecated classes
@pytest.mark.parametrize("network", NETWORKS.values(), ids=NETWORKS)
@pytest.mark.parametrize("decomposed", [False, True])
def test_multiply_adds_are_half_of_torchs_flops(network: nn.Module, decomposed: bool) -> None:
    shape = (3, 10, 10) if network is FIVE else (3, 8, 8)
    program = program_of(network, *shape)
    if decomposed:
        program = program.run_decompositions({})
    counter = FlopCounterMode(display=False)
    # As matrix products: the counter has no rule for the CPU's fused attention.
    with counter, torch.no_grad(), sdpa_kernel(SDPBackend.MATH):
        network(torch.randn(1, *shape))
    assert cost.count(program).macs == counter.get_total_flops() / 2


def test_a_weight_that_is_read_twice_is_stored_once() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3, padding=1)

        def forward(self, x: Tensor) -> Tensor:
            twice: Tensor = self.conv(self.conv(x))
            return twice

    table = cost.count(program_of(Twice(), 3, 8, 8))
    assert [layer.parameters for layer in table.layers] == [84, 0]
    assert [layer.macs for layer in table.layers] == [192 * 27] * 2


def test_an_operator_without_a_rule_is_counted_and_named() -> None:
    class Spectrum(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            spectrum: Tensor = torch.fft.rfft(x)
            return spectrum.abs()

    table = cost.count(program_of(Spectrum(), 3, 8))
    unknown = [layer.operator for layer in table.layers if not layer.known]
    assert unknown == ["fft_rfft"]
    assert "fft_rfft (1)" in printed(table)


def printed(table: CostTable) -> str:
    stream = io.StringIO()
    cost.print_table(table, Console(file=stream, width=160), title="cost")
    return stream.getvalue()


def test_the_table_shows_every_layer_and_the_sum() -> None:
    table = cost.count(program_of(FIVE, 3, 10, 10))
    text = printed(table)
    assert f"{table.macs:,}" in text
    assert "conv_transpose2d" in text
    stream = io.StringIO()
    cost.print_comparison(table, CostTable(table.layers[:1]), Console(file=stream, width=120))
    assert "before the fold" in stream.getvalue()


class Branches(nn.Module):
    """x, its ReLU and their sum: three values of the same size, at most three alive."""

    def forward(self, x: Tensor) -> Tensor:
        positive = x.relu()
        doubled = positive + positive
        return (doubled + x).flatten(1)


def test_the_share_of_batch_norms_is_that_of_their_time() -> None:
    table = CostTable(
        (), times=(LayerTime("0/conv2d", "Conv", 3e-6), LayerTime("1", "BatchNormalization", 1e-6))
    )
    assert table.batch_norm_time_share == pytest.approx(0.25)
    assert "measured 4 µs for one picture in 2 nodes, 25.0% of it in BatchNorms" in " ".join(
        printed(table).split()
    )
    assert CostTable(()).batch_norm_time_share == 0


def test_a_file_is_as_fast_as_itself(version: Path, digits: ImageDataset) -> None:
    path = version / "model.onnx"
    found = cost.speed_up(path, path, digits.test.images[:4])
    assert found.low <= found.median <= found.high
    assert found.median == pytest.approx(1, abs=0.5)


@pytest.mark.parametrize(
    ("found", "text"),
    [
        (SpeedUp(2.806, 2.7, 2.96), "2.81 times as fast (2.70 – 2.96)"),
        (SpeedUp(0.5, 0.4, 0.6), "0.50 times as fast (0.40 – 0.60)"),
        (SpeedUp(0.995, 0.993, 0.997), "no difference in speed (0.99 – 1.00 times as fast)"),
        (SpeedUp(1.02, 0.97, 1.08), "no difference in speed (0.97 – 1.08 times as fast)"),
    ],
)
def test_what_cannot_be_told_apart_is_not_called_faster(found: SpeedUp, text: str) -> None:
    assert str(found) == text


def test_the_interval_of_a_median_is_the_textbook_s() -> None:
    # Conover's table: for n = 30 the 10th and the 21st value, for n = 6 the outermost.
    assert cost.interval_of_median(range(1, 31)) == (10, 21)
    assert cost.interval_of_median(range(1, 7)) == (1, 6)


def test_too_few_values_have_no_interval() -> None:
    with pytest.raises(ValueError, match="less than 95"):
        cost.interval_of_median(range(5))


def test_peak_memory_counts_what_lives_at_the_same_moment() -> None:
    size = 4 * 3 * 8 * 8
    assert (
        cost.count(program_of(nn.Sequential(nn.ReLU(), nn.ReLU(), nn.ReLU()), 3, 8, 8)).peak_bytes == 2 * size
    )
    # x waits for the last sum, the ReLU's result is gone by then; the view is the sum's memory.
    assert cost.count(program_of(Branches(), 3, 8, 8)).peak_bytes == 3 * size


def test_bytes_moved_and_intensity_by_hand() -> None:
    table = cost.count(program_of(FIVE, 3, 10, 10))
    layers = {layer.name: layer for layer in table.layers}
    assert layers["0"].moved_bytes == 4 * (300 + 224 + 800)
    assert layers["0"].intensity == 800 * 27 / (4 * 1324)
    assert layers["1"].moved_bytes == 4 * (800 + 32 + 800)
    assert layers["4"].moved_bytes == 0
    assert table.batch_norm_share == 4 * 1632 / table.moved_bytes
