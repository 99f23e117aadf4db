"""Running statistics estimated anew: what the evaluating network meets, however the pictures are cut."""

from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from model_export import architectures
from model_export.calibration import ChannelStatistics, PixelBatches, adapt, recalibrate
from model_export.config import TrainConfig
from model_export.errors import InvalidConfig
from model_export.evaluation import predict
from model_export.layers import BatchNormActivation
from model_export.training import train
from tests.model_export.tiny_datasets import drawn_dataset, small_network

pytestmark = pytest.mark.usefixtures("one_thread")


def network() -> nn.Module:
    torch.manual_seed(0)
    return architectures.build("cifar_resnet20", input_shape=(1, 8, 8), classes=4)


def pictures(size: int = 24) -> Tensor:
    return torch.randn(size, 1, 8, 8, generator=torch.Generator().manual_seed(1)) + 0.5


def cut(x: Tensor, sizes: int | list[int]) -> tuple[Tensor, ...]:
    return torch.split(x, sizes)


def statistics(model: nn.Module) -> Tensor:
    return torch.cat([
        torch.cat([part.running_mean, part.running_var])  # type: ignore[list-item]  # they are tracked
        for part in model.modules()
        if isinstance(part, _BatchNorm)
    ])  # fmt: skip


@pytest.mark.parametrize("cuts", [[1] * 24, [5, 19], [23, 1], [8, 8, 8]])
def test_the_cut_into_batches_does_not_matter(cuts: list[int]) -> None:
    whole, pieces = network(), network()
    recalibrate(whole, [pictures()])
    recalibrate(pieces, cut(pictures(), cuts))
    torch.testing.assert_close(statistics(pieces), statistics(whole), rtol=1e-5, atol=1e-6)


def test_the_order_of_the_instances_does_not_matter() -> None:
    forwards, backwards = network(), network()
    recalibrate(forwards, cut(pictures(), 7))
    recalibrate(backwards, cut(pictures().flip(0), 7))
    torch.testing.assert_close(statistics(backwards), statistics(forwards), rtol=1e-5, atol=1e-6)


def test_they_are_what_the_evaluating_network_meets() -> None:
    model = network()
    recalibrate(model, cut(pictures(), 7))
    met: dict[str, Tensor] = {}
    for name, part in model.named_modules():
        if isinstance(part, _BatchNorm):
            part.register_forward_pre_hook(lambda _, x, name=name: met.__setitem__(name, x[0]))
    with torch.inference_mode():
        model(pictures())
    assert len(met) == 21
    for name, x in met.items():
        part = model.get_submodule(name)
        values = x.movedim(1, 0).flatten(1).double()
        torch.testing.assert_close(part.running_mean.double(), values.mean(dim=1), rtol=1e-4, atol=1e-5)
        torch.testing.assert_close(part.running_var.double(), values.var(dim=1), rtol=1e-4, atol=1e-5)


def test_twice_is_once() -> None:
    model = network()
    recalibrate(model, [pictures()])
    once = statistics(model)
    recalibrate(model, [pictures()])
    assert torch.equal(statistics(model), once)


def test_one_whole_batch_agrees_with_a_training_step() -> None:
    model, trained = small_network(), small_network()
    norm_of(trained).momentum = 1.0
    trained.train()(pictures())
    recalibrate(model, [pictures()])
    torch.testing.assert_close(statistics(model), statistics(trained))


def test_weights_and_other_buffers_stay() -> None:
    model = network()
    before = copy.deepcopy(model.state_dict())
    recalibrate(model, [pictures()])
    changed = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
    assert {key.rsplit(".", 1)[1] for key in changed} == {"running_mean", "running_var"}
    assert not model.training


def test_channels_may_be_last() -> None:
    layer = BatchNormActivation(3, axis=-1)
    x = torch.randn(4, 5, 6, 3, generator=torch.Generator().manual_seed(0))
    recalibrate(layer, [x])
    assert layer.running_mean is not None
    torch.testing.assert_close(layer.running_mean, x.mean(dim=(0, 1, 2)))


def norm_of(model: nn.Sequential) -> nn.BatchNorm2d:
    """The only BatchNorm of the small network."""
    (norm,) = (part for part in model if isinstance(part, nn.BatchNorm2d))
    return norm


class Shared(nn.Module):
    """One BatchNorm that runs twice, one that keeps no statistics, one that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.norm = nn.BatchNorm2d(1)
        self.untracked = nn.BatchNorm2d(1, track_running_stats=False)
        self.idle = nn.BatchNorm2d(1)

    def forward(self, x: Tensor) -> Tensor:
        """Both uses see the same scale of values, shifted."""
        result: Tensor = self.untracked(self.norm(x) + self.norm(x + 4))
        return result


def test_a_shared_batch_norm_gets_all_its_uses() -> None:
    model, x = Shared(), pictures()
    recalibrate(model, cut(x, 5))
    both = torch.cat([x, x + 4]).double()
    torch.testing.assert_close(model.norm.running_mean, both.mean().float()[None])
    torch.testing.assert_close(model.norm.running_var, both.var().float()[None])
    assert model.idle.running_mean is not None
    assert model.idle.running_mean.item() == 0


@settings(deadline=None)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=5), st.floats(-1e6, 1e6))
def test_gathered_statistics_are_exact_even_far_from_zero(sizes: list[int], offset: float) -> None:
    values = torch.randn(sum(sizes), 2, 3, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    gathered = ChannelStatistics()
    for part in cut(values + offset, sizes):
        gathered.add(part, axis=1)
    flat = (values + offset).movedim(1, 0).flatten(1)
    assert gathered.count == flat.shape[1]
    torch.testing.assert_close(gathered.mean, flat.mean(dim=1))
    torch.testing.assert_close(gathered.variance, flat.var(dim=1), rtol=1e-6, atol=0)


def test_too_little_to_measure_is_refused() -> None:
    with pytest.raises(InvalidConfig, match="there are none"):
        recalibrate(network(), [])
    with pytest.raises(InvalidConfig, match="more than one picture"):
        recalibrate(nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64)), [pictures(1)])


def test_a_lagging_average_is_repaired() -> None:
    dataset = drawn_dataset()
    torch.manual_seed(0)
    model = architectures.build("article_cnn", input_shape=dataset.input_shape, classes=len(dataset.labels))
    # Keras's momentum wants hundreds of steps; these are 18.
    lagging = train(model, dataset, TrainConfig(epochs=3, batch_size=16)).epochs[-1].validation_loss
    recalibrate(model, PixelBatches(dataset.train.images, dataset.contract, batch_size=10))
    logits = torch.from_numpy(predict(model, dataset.validation.images, dataset.contract))
    assert F.cross_entropy(logits, torch.from_numpy(dataset.validation.targets)) < 0.2 * lagging


# Adaptation -------------------------------------------------------------------------------------


def test_adaptation_undoes_a_change_of_contrast() -> None:
    dataset, model = drawn_dataset(), small_network()
    train(model, dataset, TrainConfig(epochs=8, batch_size=16, learning_rate=0.02))
    adapt(model, dataset.test.images, dataset.contract)
    at_home = predict(model, dataset.test.images, dataset.contract)
    middle = 255 * dataset.contract.mean[0]
    faded = np.rint(middle + (dataset.test.images - middle) / 3).astype(np.uint8)
    unadapted = predict(model, faded, dataset.contract)
    adapt(model, faded, dataset.contract)
    adapted = predict(model, faded, dataset.contract)
    assert abs(adapted - at_home).max() < 0.1 * abs(unadapted - at_home).max()


@pytest.mark.parametrize(("prior", "share"), [(0, 0.0), (32, 0.5), (96, 0.75)])
def test_a_prior_counts_as_so_many_pictures(prior: int, share: float) -> None:
    images = drawn_dataset().test.images
    assert len(images) == 32
    model, new = small_network(), small_network()
    before = statistics(model)
    adapt(new, images, drawn_dataset().contract)
    adapt(model, images, drawn_dataset().contract, prior=prior)
    torch.testing.assert_close(statistics(model), share * before + (1 - share) * statistics(new))


def test_a_negative_prior_is_refused() -> None:
    dataset = drawn_dataset()
    with pytest.raises(InvalidConfig, match="prior of -1"):
        adapt(small_network(), dataset.test.images, dataset.contract, prior=-1)


def test_batches_cover_every_picture_once() -> None:
    dataset = drawn_dataset()
    batches = PixelBatches(dataset.test.images, dataset.contract, batch_size=10)
    assert [len(batch) for batch in batches] == [10, 10, 10, 2]
    expected = (dataset.test.images / 255 - 0.45) / 0.3
    torch.testing.assert_close(torch.cat(list(batches)), torch.from_numpy(expected).float().movedim(3, 1))
