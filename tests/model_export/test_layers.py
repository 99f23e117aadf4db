"""The article's layer against the definition, and the step from pixels to the network's input."""

from __future__ import annotations

from typing import Literal

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from model_export.errors import ModelError
from model_export.layers import BatchNormActivation, PixelNormalization


def statistics(x: Tensor, axis: int) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of each channel, by the definition."""
    channels_first = x.movedim(axis, 0).flatten(1)
    return channels_first.mean(dim=1), channels_first.var(dim=1, unbiased=False)


def along(values: Tensor, x: Tensor, axis: int) -> Tensor:
    """``values`` [C], shaped to broadcast along ``axis`` of ``x``."""
    shape = [1] * x.dim()
    shape[axis] = -1
    return values.view(shape)


@settings(deadline=None, max_examples=30)
@given(
    rank=st.integers(2, 5),
    data=st.data(),
    epsilon=st.floats(1e-6, 1.0),
    scale=st.booleans(),
    center=st.booleans(),
    fused=st.sampled_from([None, "relu"]),
)
def test_training_normalises_over_every_axis_but_the_channel(
    rank: int, data: st.DataObject, epsilon: float, scale: bool, center: bool, fused: Literal["relu"] | None
) -> None:
    axis = data.draw(st.integers(1, rank - 1)) - data.draw(st.sampled_from([0, rank]))
    generator = torch.Generator().manual_seed(rank)
    x = torch.randn(*range(4, 4 + rank), generator=generator, dtype=torch.float64)
    channels = x.shape[axis]
    layer = BatchNormActivation(
        channels, axis=axis, epsilon=epsilon, center=center, scale=scale, fused_activation=fused
    ).double()
    gamma = torch.linspace(-2, 2, channels, dtype=torch.float64) if scale else torch.ones(channels)
    beta = torch.linspace(1, -1, channels, dtype=torch.float64) if center else torch.zeros(channels)
    for parameter, value in ((layer.weight, gamma), (layer.bias, beta)):
        if parameter is not None:
            parameter.data.copy_(value)

    mean, variance = (along(values, x, axis) for values in statistics(x, axis))
    expected = along(gamma, x, axis) * (x - mean) / (variance + epsilon).sqrt() + along(beta, x, axis)
    if fused:
        expected = expected.relu()
    torch.testing.assert_close(layer(x), expected)


def test_moving_averages_follow_the_keras_convention() -> None:
    layer = BatchNormActivation(3, momentum=0.75).double()
    x = torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    layer(x)
    mean, _ = statistics(x, 1)
    unbiased = x.movedim(1, 0).flatten(1).var(dim=1)
    torch.testing.assert_close(layer.running_mean, 0.25 * mean)
    torch.testing.assert_close(layer.running_var, 0.75 + 0.25 * unbiased)


def test_evaluating_uses_the_moving_averages_and_leaves_them() -> None:
    layer = BatchNormActivation(3).eval()
    before = {key: value.clone() for key, value in layer.state_dict().items()}
    x = 7 + 3 * torch.randn(5, 3, 4, 4, generator=torch.Generator().manual_seed(0))
    together, alone = layer(x), torch.cat([layer(instance[None]) for instance in x])
    torch.testing.assert_close(together, alone)
    torch.testing.assert_close(together, x / (1 + layer.eps) ** 0.5)
    assert all(torch.equal(value, before[key]) for key, value in layer.state_dict().items())


@pytest.mark.parametrize("scale", [True, False])
@pytest.mark.parametrize("center", [True, False])
def test_scale_and_center_decide_which_parameters_exist(scale: bool, center: bool) -> None:
    layer = BatchNormActivation(3, scale=scale, center=center)
    expected = {name for name, there in (("weight", scale), ("bias", center)) if there}
    assert {name for name, _ in layer.named_parameters()} == expected
    layer.reset_parameters()
    assert set(layer.state_dict()) == expected | {"running_mean", "running_var", "num_batches_tracked"}


@pytest.mark.parametrize("scale", [True, False])
def test_export_sees_one_batch_norm(scale: bool) -> None:
    model = nn.Sequential(nn.Conv2d(1, 3, 3), BatchNormActivation(3, scale=scale, fused_activation="relu"))
    program = torch.export.export(model.eval(), (torch.zeros(2, 1, 5, 5),))
    operators = [str(node.target) for node in program.graph.nodes if node.op == "call_function"]
    assert operators == ["aten.conv2d.default", "aten.batch_norm.default", "aten.relu.default"]


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"epsilon": 0.0}, "epsilon"),
        ({"epsilon": float("nan")}, "epsilon"),
        ({"momentum": 1.0}, "momentum"),
        ({"momentum": -0.1}, "momentum"),
        ({"axis": 0}, "axis 0"),
        ({"fused_activation": "tanh"}, "tanh"),
    ],
)
def test_arguments_out_of_range_are_refused(arguments: dict[str, float], complaint: str) -> None:
    with pytest.raises(ModelError, match=complaint):
        BatchNormActivation(3, **arguments)  # type: ignore[arg-type]  # wrong on purpose


@pytest.mark.parametrize("shape", [(2, 4, 5, 5), (3,)])
def test_an_input_of_other_channels_is_refused(shape: tuple[int, ...]) -> None:
    with pytest.raises(ModelError, match="3 channels"):
        BatchNormActivation(3)(torch.zeros(shape))


def test_repr_speaks_keras() -> None:
    layer = BatchNormActivation(3, momentum=0.9, epsilon=0.01, scale=False, fused_activation="relu")
    assert repr(layer) == (
        "BatchNormActivation(3, axis=1, momentum=0.9, epsilon=0.01, center=True, scale=False, "
        "fused_activation=relu)"
    )


def test_pixels_become_channels_first_and_standardised() -> None:
    images = np.random.default_rng(0).integers(0, 256, (2, 4, 5, 3), dtype=np.uint8)
    mean, std = (0.1, 0.4, 0.6), (0.2, 0.3, 0.5)
    expected = ((images / 255 - np.array(mean)) / np.array(std)).transpose(0, 3, 1, 2)
    result = PixelNormalization(mean, std)(torch.from_numpy(images))
    assert result.dtype is torch.float32
    np.testing.assert_allclose(result.numpy(), expected, rtol=1e-5, atol=1e-6)
