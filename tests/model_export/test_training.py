"""Training: it learns, it is a function of its configuration, and a kill costs one epoch at most."""

from __future__ import annotations

import copy
import io
import math
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console
from torch import Tensor, nn

from model_export.calibration import PixelBatches, recalibrate
from model_export.config import TrainConfig
from model_export.errors import DataError, InvalidConfig, ModelError, TrainingDiverged
from model_export.evaluation import accuracy
from model_export.training import train
from model_export.training.augmentation import augment
from model_export.training.loss import Loss, balancing_weights
from model_export.training.schedule import learning_rate
from tests.model_export.tiny_datasets import Mortal, drawn_dataset, small_network, with_targets

pytestmark = pytest.mark.usefixtures("one_thread")  # the number of threads decides the last bits

CONFIG = TrainConfig(epochs=4, batch_size=16, learning_rate=0.02)
EVERYTHING = replace(
    CONFIG, schedule="cosine", warmup_epochs=0.5, augmentation="shift_flip", optimizer="sgd", patience=4
)


def weights(model: nn.Module) -> dict[str, Tensor]:
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return all(torch.equal(value, second[key]) for key, value in first.items())


def test_it_learns_and_says_how_it_went() -> None:
    dataset, model = drawn_dataset(), small_network()
    history = train(model, dataset, replace(CONFIG, epochs=8))
    assert [record.epoch for record in history.epochs] == list(range(1, 9))
    assert history.epochs[-1].train_loss < 0.5 * history.epochs[0].train_loss
    assert not model.training
    assert all(parameter.is_contiguous() for parameter in model.parameters())
    assert accuracy(model, dataset, "test", name="unfolded").value > 0.9
    logits = model(torch.from_numpy((dataset.validation.images / 255 - 0.45) / 0.3).float().movedim(3, 1))
    loss = F.cross_entropy(logits, torch.from_numpy(dataset.validation.targets))
    assert history.epochs[-1].validation_loss == pytest.approx(loss.item(), rel=1e-4)


@pytest.mark.parametrize("config", [CONFIG, EVERYTHING])
def test_same_seed_same_weights(config: TrainConfig) -> None:
    runs = []
    for seed in (0, 0, 1):
        model = small_network()
        train(model, drawn_dataset(), replace(config, seed=seed))
        runs.append(weights(model))
    assert same(runs[0], runs[1])
    assert not same(runs[0], runs[2])


@pytest.mark.parametrize(("size", "batch_size"), [(33, 16), (33, 2), (3, 2)])
def test_a_last_batch_of_one_does_not_happen(size: int, batch_size: int) -> None:
    """A BatchNorm without positions has no batch statistics of a single instance."""
    network = nn.Sequential(nn.Flatten(), nn.BatchNorm1d(64), nn.Linear(64, 4))
    train(network, drawn_dataset(size=size), replace(CONFIG, epochs=1, batch_size=batch_size))


@given(instances=st.integers(1, 999), batch_size=st.integers(1, 99))
def test_an_epoch_is_cut_into_nearly_equal_batches(instances: int, batch_size: int) -> None:
    steps = TrainConfig(batch_size=batch_size).steps(instances)
    sizes = {len(part) for part in torch.arange(instances).tensor_split(steps)}
    assert max(sizes) - min(sizes) <= 1
    assert max(sizes) <= max(batch_size, 3)
    assert (1 in sizes) == (1 in (instances, batch_size))


class Viewing(nn.Module):
    """As in many a tutorial: a `view` that asks for channels first in memory."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(1, 4, 3, padding=1)
        self.norm = nn.BatchNorm2d(4)
        self.head = nn.Linear(4 * 64, 4)

    def forward(self, x: Tensor) -> Tensor:
        logits: Tensor = self.head(self.norm(self.conv(x)).relu().view(-1, 4 * 64))
        return logits


def test_a_network_that_asks_for_channels_first_learns_too() -> None:
    model = Viewing()
    train(model, drawn_dataset(), CONFIG)
    batches = PixelBatches(drawn_dataset().validation.images, drawn_dataset().contract)
    recalibrate(model, batches)
    assert accuracy(model, drawn_dataset(), "test", name="unfolded").value > 0.9


def test_a_network_without_parameters_has_nothing_to_learn() -> None:
    with pytest.raises(InvalidConfig, match="--epochs 4: the network has nothing to learn; say --epochs 0"):
        train(nn.Flatten(), drawn_dataset(), CONFIG)


class WithAuxiliaryLogits(nn.Module):
    """As some networks have them while they train."""

    def __init__(self) -> None:
        super().__init__()
        self.network = small_network()

    def forward(self, x: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        logits: Tensor = self.network(x)
        return (logits, logits) if self.training else logits


def test_another_answer_while_training_is_refused() -> None:
    complaint = r"while it trains, the network must return logits of shape \(N, 4\).*: a tuple"
    with pytest.raises(ModelError, match=complaint):
        train(WithAuxiliaryLogits(), drawn_dataset(), CONFIG)


def test_progress_is_shown() -> None:
    shown = io.StringIO()
    console = Console(file=shown, force_terminal=True, width=120)
    train(small_network(), drawn_dataset(), replace(CONFIG, epochs=2), console=console)
    assert "epoch 2: loss" in shown.getvalue()


# Checkpoints ------------------------------------------------------------------------------------

KILLED_RUN = """
import sys
from pathlib import Path
import torch
from tests.model_export.test_training import CONFIG, EVERYTHING
from tests.model_export.tiny_datasets import Mortal, drawn_dataset, small_network
from model_export.training import train

torch.set_num_threads(1)
config = {"CONFIG": CONFIG, "EVERYTHING": EVERYTHING}[sys.argv[1]]
train(Mortal(small_network(), int(sys.argv[2])), drawn_dataset(), config, checkpoint=Path(sys.argv[3]))
"""
STEPS_PER_EPOCH = 6 + 1  # batches of the training split, and one of the validation split


@pytest.mark.parametrize("name", ["CONFIG", "EVERYTHING"])
@pytest.mark.parametrize("death", [STEPS_PER_EPOCH + 3, 3 * STEPS_PER_EPOCH + 1])
def test_a_killed_run_goes_on_to_the_same_bits(tmp_path: Path, name: str, death: int) -> None:
    config = {"CONFIG": CONFIG, "EVERYTHING": EVERYTHING}[name]
    checkpoint = tmp_path / "run" / "checkpoint.pt"
    command = [sys.executable, "-c", KILLED_RUN, name, str(death), str(checkpoint)]
    killed = subprocess.run(command, timeout=100, check=False)  # noqa: S603 (our own code)
    assert killed.returncode == -signal.SIGKILL
    assert [file.name for file in checkpoint.parent.iterdir()] == ["checkpoint.pt"]

    resumed = Mortal(small_network(seed=99), death=-1)
    history = train(resumed, drawn_dataset(), config, checkpoint=checkpoint)
    whole = Mortal(small_network(), death=-1)
    expected = train(whole, drawn_dataset(), config)
    assert same(weights(resumed), weights(whole))
    assert [replace(record, seconds=0) for record in history.epochs] == [
        replace(record, seconds=0) for record in expected.epochs
    ]


def test_a_half_written_checkpoint_is_no_checkpoint(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    train(small_network(), drawn_dataset(), replace(CONFIG, epochs=1), checkpoint=checkpoint)
    (tmp_path / "checkpoint.pt.part").write_bytes(checkpoint.read_bytes()[:100])
    history = train(small_network(), drawn_dataset(), replace(CONFIG, epochs=2), checkpoint=checkpoint)
    assert len(history.epochs) == 2


def test_a_finished_run_is_not_trained_again(tmp_path: Path) -> None:
    checkpoint, model = tmp_path / "checkpoint.pt", small_network()
    train(model, drawn_dataset(), replace(CONFIG, epochs=1), checkpoint=checkpoint)
    again = small_network(seed=9)
    train(again, drawn_dataset(), replace(CONFIG, epochs=1), checkpoint=checkpoint)
    assert same(weights(model), weights(again))


@pytest.mark.parametrize(
    ("config", "size", "complaint"),
    [
        (replace(CONFIG, learning_rate=0.1), 96, r"begun with --learning-rate 0\.02, asked for 0\.1"),
        (replace(CONFIG, schedule="cosine"), 96, "begun with|--schedule"),
        (CONFIG, 100, "training data"),
    ],
)
def test_a_checkpoint_of_another_run_is_refused(
    tmp_path: Path, config: TrainConfig, size: int, complaint: str
) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    train(small_network(), drawn_dataset(), replace(CONFIG, epochs=1), checkpoint=checkpoint)
    with pytest.raises(InvalidConfig, match=complaint):
        train(small_network(), drawn_dataset(size), config, checkpoint=checkpoint)


def test_a_checkpoint_of_more_epochs_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    train(small_network(), drawn_dataset(), replace(CONFIG, epochs=2), checkpoint=checkpoint)
    with pytest.raises(InvalidConfig, match=r"checkpoint\.pt: 2 epochs are done, --epochs 1 are fewer"):
        train(small_network(), drawn_dataset(), replace(CONFIG, epochs=1), checkpoint=checkpoint)


def test_a_damaged_checkpoint_is_refused(tmp_path: Path) -> None:
    checkpoint = tmp_path / "checkpoint.pt"
    checkpoint.write_bytes(b"no checkpoint")
    with pytest.raises(InvalidConfig, match=r"checkpoint\.pt: a damaged checkpoint"):
        train(small_network(), drawn_dataset(), CONFIG, checkpoint=checkpoint)


# Stopping ---------------------------------------------------------------------------------------


def test_patience_stops_early_and_keeps_the_best_epoch() -> None:
    dataset, model = drawn_dataset(), small_network()
    # At this rate the loss jumps about, so some epoch is worse than the best before it.
    history = train(model, dataset, replace(CONFIG, epochs=60, learning_rate=1.0, patience=2))
    losses = [record.validation_loss for record in history.epochs]
    best = losses.index(min(losses))
    assert len(losses) == best + 3 < 60
    kept = small_network()
    train(kept, dataset, replace(CONFIG, epochs=best + 1, learning_rate=1.0))
    assert same(weights(model), weights(kept))


def test_divergence_is_named() -> None:
    with pytest.raises(TrainingDiverged, match=r"epoch 1: the loss is (nan|inf).*--learning-rate"):
        train(small_network(), drawn_dataset(), replace(CONFIG, optimizer="sgd", learning_rate=1e30))


def test_weights_that_explode_in_the_last_step_are_no_result() -> None:
    """The loss of a step is that before it: only the validation sees what it did."""
    config = replace(CONFIG, epochs=1, batch_size=96, optimizer="sgd", learning_rate=1e38)
    with pytest.raises(TrainingDiverged, match=r"epoch 1: the loss is (nan|inf)"):
        train(small_network(), drawn_dataset(), config)


# Fold-aware epochs ------------------------------------------------------------------------------


def test_fold_aware_epochs_train_the_affine_map_and_leave_the_statistics() -> None:
    dataset, model = drawn_dataset(), small_network()
    train(model, dataset, replace(CONFIG, epochs=3))
    plain, aware = copy.deepcopy(model), copy.deepcopy(model)
    train(plain, dataset, replace(CONFIG, epochs=2))
    train(aware, dataset, replace(CONFIG, epochs=2, fold_aware_epochs=2))
    for key, value in weights(aware).items():
        is_statistic = key.startswith("1.") and key.rsplit(".", 1)[1] not in ("weight", "bias")
        assert torch.equal(value, weights(model)[key]) == is_statistic, key
        assert not torch.equal(weights(plain)[key], weights(model)[key]), key


def test_only_the_last_epochs_are_fold_aware() -> None:
    dataset, early, late = drawn_dataset(), small_network(), small_network()
    train(early, dataset, replace(CONFIG, epochs=2))
    train(late, dataset, replace(CONFIG, epochs=3, fold_aware_epochs=1))
    assert torch.equal(weights(early)["1.running_mean"], weights(late)["1.running_mean"])
    assert not torch.equal(weights(early)["1.weight"], weights(late)["1.weight"])


def test_a_fold_aware_run_is_another_one_with_more_epochs(tmp_path: Path) -> None:
    checkpoint, config = tmp_path / "checkpoint.pt", replace(CONFIG, epochs=1, fold_aware_epochs=1)
    train(small_network(), drawn_dataset(), config, checkpoint=checkpoint)
    with pytest.raises(InvalidConfig, match="begun with --epochs 1, asked for 2"):
        train(small_network(), drawn_dataset(), replace(config, epochs=2), checkpoint=checkpoint)


# Configuration ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "changes",
    [
        {"epochs": -1},
        {"seed": -1},
        {"seed": 2**63},
        {"batch_size": 0},
        {"patience": 0},
        {"learning_rate": 0.0},
        {"learning_rate": math.nan},
        {"weight_decay": -1.0},
        {"warmup_epochs": math.inf},
        {"label_smoothing": 1.0},
        {"fold_aware_epochs": 11},
    ],
)
def test_impossible_values_are_refused(changes: dict[str, float]) -> None:
    flag = next(iter(changes)).replace("_", "-")
    with pytest.raises(InvalidConfig, match=f"--{flag}"):
        TrainConfig(**changes)  # type: ignore[arg-type]  # wrong on purpose


def test_batches_of_one_are_refused_where_there_is_a_batch_norm() -> None:
    with pytest.raises(InvalidConfig, match="--batch-size 1"):
        train(small_network(), drawn_dataset(), replace(CONFIG, batch_size=1))
    with pytest.raises(DataError, match="a single training picture"):
        train(small_network(), drawn_dataset(size=1), CONFIG)


@pytest.mark.skipif(torch.cuda.is_available(), reason="CUDA is there")
@pytest.mark.parametrize("changes", [{"device": "cuda"}, {"mixed_precision": True}])
def test_cuda_is_never_replaced_in_silence(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidConfig, match="CUDA"):
        train(small_network(), drawn_dataset(), replace(CONFIG, **changes))  # type: ignore[arg-type]  # either


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_mixed_precision_learns() -> None:
    dataset, model = drawn_dataset(), small_network()
    train(model, dataset, replace(CONFIG, epochs=8, mixed_precision=True))
    assert accuracy(model, dataset, "test", name="unfolded").value > 0.9


# Learning rate ----------------------------------------------------------------------------------


@given(
    epochs=st.integers(1, 20),
    steps=st.integers(1, 50),
    warmup=st.floats(0, 5),
    rate=st.floats(1e-5, 1),
)
def test_the_rate_rises_then_falls_to_almost_nothing(
    epochs: int, steps: int, warmup: float, rate: float
) -> None:
    config = TrainConfig(epochs=epochs, learning_rate=rate, schedule="cosine", warmup_epochs=warmup)
    rates = [learning_rate(config, step, steps) for step in range(epochs * steps)]
    top = rates.index(max(rates))
    assert all(0 < value <= rate for value in rates)
    assert rates[: top + 1] == sorted(rates[: top + 1])
    assert rates[top:] == sorted(rates[top:], reverse=True)
    assert abs(top - warmup * steps) <= 1 or warmup > epochs


def test_a_constant_rate_is_constant() -> None:
    assert {learning_rate(CONFIG, step, 6) for step in range(24)} == {CONFIG.learning_rate}


# Augmentation -----------------------------------------------------------------------------------


def test_no_augmentation_is_the_identity() -> None:
    images = torch.zeros(2, 8, 8, 1, dtype=torch.uint8)
    assert augment(images, CONFIG, torch.Generator()) is images


def test_shifts_move_whole_pictures_by_at_most_an_eighth() -> None:
    images = torch.zeros(200, 16, 24, 3, dtype=torch.uint8)
    images[:, 8, 12] = torch.tensor([10, 20, 30], dtype=torch.uint8)
    shifted = augment(images, replace(CONFIG, augmentation="shift"), torch.Generator().manual_seed(0))
    places = shifted.sum(dim=3).nonzero()
    assert places[:, 0].tolist() == list(range(200))
    assert set(places[:, 1].tolist()) == set(range(8 - 2, 8 + 3))
    assert set(places[:, 2].tolist()) == set(range(12 - 3, 12 + 4))
    assert (shifted.flatten(1, 2).sum(dim=1) == torch.tensor([10, 20, 30])).all()
    assert images.sum() == 200 * 60


def test_about_half_of_the_pictures_are_mirrored() -> None:
    images = torch.zeros(400, 4, 4, 1, dtype=torch.uint8)  # too small for a shift
    images[:, :, 0] = 1
    flipped = augment(images, replace(CONFIG, augmentation="shift_flip"), torch.Generator().manual_seed(0))
    left, right = flipped[:, 0, 0, 0].float().mean(), flipped[:, 0, -1, 0].float().mean()
    assert left + right == 1
    assert 0.4 < right < 0.6


# Loss -------------------------------------------------------------------------------------------


def test_multi_label_targets_are_learnt_each_by_itself() -> None:
    targets = np.array([[0, 0], [1, 1], [1, 0], [0, 1]])  # is the left half bright? is the right one?
    dataset = with_targets(drawn_dataset(), targets, ("left", "right"))
    model = nn.Sequential(*list(small_network())[:-1], nn.Linear(16, 2))
    history = train(model, dataset, replace(CONFIG, epochs=12))
    assert history.epochs[-1].train_accuracy > 0.9
    assert accuracy(model, dataset, "test", name="unfolded").value > 0.9


def test_smoothing_spreads_the_target() -> None:
    logits, targets = torch.randn(5, 3, generator=torch.Generator().manual_seed(0)), torch.arange(5) % 3
    spread = 0.9 * F.one_hot(targets, 3) + 0.1 / 3
    expected = -(spread * logits.log_softmax(dim=1)).sum(dim=1).mean()
    torch.testing.assert_close(Loss(0.1)(logits, targets), expected)
    several = F.one_hot(targets, 3)
    soft = 0.9 * several + 0.05
    expected = -(soft * F.logsigmoid(logits) + (1 - soft) * F.logsigmoid(-logits)).mean()
    torch.testing.assert_close(Loss(0.1)(logits, several), expected)


def test_balancing_makes_every_class_count_alike() -> None:
    targets = np.array([0] * 8 + [1] * 2 + [2] * 6)
    weights = balancing_weights(targets, 3)
    per_class = weights * torch.tensor([8.0, 2.0, 6.0])
    torch.testing.assert_close(per_class, per_class.mean().expand(3))
    positives = balancing_weights(np.array([[1, 0], [0, 0], [0, 1], [0, 1]]), 2)
    torch.testing.assert_close(positives, torch.tensor([3.0, 1.0]))


def test_balanced_training_uses_the_weights() -> None:
    dataset = drawn_dataset()
    rare = replace(dataset, train=dataset.train.take(np.flatnonzero(dataset.train.targets != 0)[:60]))
    plain, balanced = (
        train(small_network(), rare, replace(CONFIG, epochs=1, class_weights=choice)).epochs[0].train_loss
        for choice in ("none", "balanced")
    )
    assert plain != balanced
