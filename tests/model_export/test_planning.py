"""The planner: each choice follows from the number in its reason, and the network follows the plan."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from model_export import architectures, cost
from model_export.config import ModelConfig, TrainConfig
from model_export.data import ImageDataset, Split
from model_export.layers import BatchNormActivation
from model_export.planning import plan
from model_export.records import CostTable, TrainingPlan
from model_export.training import train
from tests.model_export.tiny_datasets import drawn_dataset, with_targets

pytestmark = pytest.mark.usefixtures("one_thread")

ARTICLE = ModelConfig("article_cnn")
CONFIG = TrainConfig(batch_size=32)


def cost_of(model: ModelConfig, dataset: ImageDataset) -> CostTable:
    network = network_of(model, dataset).eval()
    return cost.count(torch.export.export(network, (torch.zeros(2, *dataset.input_shape),)))


def network_of(model: ModelConfig, dataset: ImageDataset, planned: TrainingPlan | None = None) -> nn.Module:
    return architectures.load(
        model, input_shape=dataset.input_shape, classes=len(dataset.labels), plan=planned
    )


def planned_for(
    dataset: ImageDataset, config: TrainConfig = CONFIG, model: ModelConfig = ARTICLE
) -> TrainingPlan:
    return plan(model, dataset, config, cost_of(model, dataset))


def reason(planned: TrainingPlan, subject: str) -> str:
    (decision,) = (decision for decision in planned.decisions if decision.subject == subject)
    return f"{decision.choice}: {decision.reason}"


def dataset_of(size: int) -> ImageDataset:
    return drawn_dataset(size)


def test_every_decision_has_a_reason() -> None:
    decisions = planned_for(dataset_of(96)).decisions
    subjects = [decision.subject for decision in decisions]
    assert subjects == ["conv1", "conv2", "dense1", "momentum", "epsilon", "running statistics", "loss"]
    assert all(decision.choice and decision.reason for decision in decisions)


def test_batch_norms_stand_where_they_fold_away() -> None:
    planned = planned_for(dataset_of(96))
    assert set(planned.placements.values()) == {"before_activation"}
    assert "2,048 bytes" not in reason(planned, "conv1")
    assert f"{4 * 32 * 8 * 8:,} bytes a picture" in reason(planned, "conv1")
    names = [name for name, _ in network_of(ARTICLE, dataset_of(96), planned).named_children()]
    assert names[:3] == ["conv1", "norm1", "pool1"]


@pytest.mark.parametrize(("batch_size", "has_norm"), [(8, False), (32, True)])
def test_a_dense_layer_needs_enough_instances_for_a_batch_norm(batch_size: int, has_norm: bool) -> None:
    planned = planned_for(dataset_of(96), replace(CONFIG, batch_size=batch_size))
    assert (planned.placements["dense1"] == "before_activation") == has_norm
    assert planned.placements["conv1"] == "before_activation"  # it has 64 positions a picture
    if not has_norm:
        assert f"{batch_size} values a channel" in reason(planned, "dense1")
    network = network_of(ARTICLE, dataset_of(96), planned)
    assert hasattr(network, "norm3") == has_norm
    assert hasattr(network, "relu3") != has_norm


@pytest.mark.parametrize(("size", "batch_size"), [(96, 32), (1000, 2), (96, 96)])
def test_the_moving_average_covers_an_epoch_but_no_endless_one(size: int, batch_size: int) -> None:
    planned = planned_for(dataset_of(size), replace(CONFIG, batch_size=batch_size))
    covered = min(-(-size // batch_size), 200)
    assert 1 - planned.momentum**covered == pytest.approx(0.95)
    assert f"last {covered}" in reason(planned, "momentum")


def with_contrast(dataset: ImageDataset, factor: float) -> ImageDataset:
    """The same pictures, fainter; but mean and std stay what they were."""

    def faded(split: Split) -> Split:
        return replace(split, images=np.rint(115 + (split.images - 115.0) * factor).astype(np.uint8))

    return replace(dataset, train=faded(dataset.train))


def test_epsilon_follows_the_smallest_variance() -> None:
    strong, faint = planned_for(dataset_of(96)), planned_for(with_contrast(dataset_of(96), 0.1))
    assert strong.epsilon is not None
    assert faint.epsilon is not None
    assert 1e-5 <= faint.epsilon < strong.epsilon <= 1e-3
    assert "smallest variance" in reason(strong, "epsilon")


def test_weights_keep_the_epsilon_that_they_were_trained_with(tmp_path: Path) -> None:
    dataset = dataset_of(96)
    file = tmp_path / "weights.pt"
    torch.save(network_of(ARTICLE, dataset).state_dict(), file)
    planned = planned_for(dataset, model=replace(ARTICLE, weights=file))
    assert planned.epsilon is None
    assert "weights.pt" in reason(planned, "epsilon")


def test_a_network_follows_its_plan() -> None:
    dataset = dataset_of(96)
    planned = replace(planned_for(dataset), momentum=0.7, epsilon=0.5)
    unplaced = replace(planned, placements={})
    for model, its_plan in ((ARTICLE, planned), (ModelConfig("cifar_resnet20"), unplaced)):
        norms = [
            part
            for part in network_of(model, dataset, its_plan).modules()
            if isinstance(part, BatchNormActivation | nn.BatchNorm2d)
        ]
        assert norms
        assert all(part.momentum == pytest.approx(0.3) and part.eps == 0.5 for part in norms)


def test_other_architectures_keep_their_structure() -> None:
    planned = planned_for(dataset_of(96), model=ModelConfig("cifar_resnet20"))
    assert not planned.placements
    assert "21 BatchNorms" in reason(planned, "placement")


def test_several_labels_a_picture_want_a_sigmoid() -> None:
    targets = np.array([[0, 0, 1], [1, 1, 1], [1, 0, 1], [0, 1, 0]])
    dataset = with_targets(dataset_of(96), targets, ("left", "right", "three"))
    planned = planned_for(dataset)
    assert "sigmoid" in reason(planned, "loss")
    assert planned.class_weights == "none"


def test_rare_classes_are_weighted() -> None:
    dataset = dataset_of(96)
    kept = np.flatnonzero((dataset.train.targets != 0) | (np.arange(96) % 16 == 0))
    rare = replace(dataset, train=dataset.train.take(kept))
    planned = planned_for(rare)
    assert planned.class_weights == "balanced"
    assert "4.0 times" in reason(planned, "class weights")
    assert planned_for(dataset).class_weights == "none"


def test_what_was_asked_for_stands() -> None:
    planned = planned_for(dataset_of(96), replace(CONFIG, class_weights="balanced", label_smoothing=0.3))
    assert (planned.class_weights, planned.label_smoothing) == ("balanced", 0.3)


def test_many_classes_are_smoothed() -> None:
    dataset = replace(dataset_of(96), labels=tuple(f"label {number}" for number in range(100)))
    assert planned_for(dataset).label_smoothing == 0.1
    assert "100 classes" in reason(planned_for(dataset), "label smoothing")


def test_a_planned_network_trains() -> None:
    dataset = dataset_of(96)
    network = network_of(ARTICLE, dataset, planned_for(dataset))
    history = train(network, dataset, replace(CONFIG, epochs=3))
    assert history.epochs[-1].validation_accuracy > 0.9
