"""What a model file says about itself, gathered from the stages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from model_export import export, verification
from model_export.data import ImageDataset, SplitName
from model_export.evaluation import open_session, predict
from model_export.records import (
    AccuracyResult,
    DataSummary,
    FoldOutcome,
    ParityCheck,
    SplitSummary,
    Verification,
)
from service.artifact import (
    Accuracy,
    FoldSummary,
    ModelMetadata,
    Parity,
    Precision,
    ReferenceDistributions,
    Task,
)

SELF_TEST_INSTANCES = 4  # small in the file, and each replay costs start-up time
SELF_TEST_CANDIDATES = 64  # enough to find clear answers of several labels among them
REFERENCE_INSTANCES = 2048  # a share of 1 % is then known to ±0.2 %


def task_of(dataset: ImageDataset) -> Task:
    """One label a picture, or any number of them."""
    return Task.MULTICLASS if dataset.test.targets.ndim == 1 else Task.MULTILABEL


def summarise(dataset: ImageDataset) -> DataSummary:
    """How many pictures its splits have, and how many of them show each label."""
    splits: tuple[SplitName, ...] = ("train", "validation", "test")
    return DataSummary(dataset.name, tuple(_summary(dataset, name) for name in splits))


def _summary(dataset: ImageDataset, name: SplitName) -> SplitSummary:
    targets = dataset.split(name).targets
    is_single = targets.ndim == 1
    counts = np.bincount(targets, minlength=len(dataset.labels)) if is_single else targets.sum(axis=0)
    return SplitSummary(name, len(targets), tuple(int(count) for count in counts))


def describe(
    graph: ir.Model,
    model_file: Path,
    dataset: ImageDataset,
    *,
    name: str,
    version: int,
    architecture: str,
    fold: FoldOutcome,
) -> ModelMetadata:
    """The metadata of a float32 file, but for what its proofs will tell.

    Args:
        graph: As `export.served_graph` made it.
        model_file: The same graph as a file, to be measured.
        dataset: Where pictures come from.
        name: Of the model.
        version: That it will probably get.
        architecture: Of the network.
        fold: What became of its BatchNorms.
    """
    return ModelMetadata(
        name=name,
        version=str(version),
        created_at=datetime.now(UTC),
        task=task_of(dataset),
        labels=dataset.labels,
        input=dataset.contract,
        precision=Precision.FP32,
        architecture=architecture,
        fold=_fold_summary(fold),
        reference=_reference(model_file, dataset),
        producer=export.producer(graph),
        selftest=export.make_self_test(
            model_file, _self_test_images(model_file, dataset), dataset.contract, Precision.FP32
        ),
    )


def describe_precision(
    model_file: Path, float_metadata: ModelMetadata, precision: Precision
) -> ModelMetadata:
    """The metadata of a file of another precision: the same pictures, its own logits.

    Args:
        model_file: The quantized file, to be measured.
        float_metadata: Of the float32 file beside it.
        precision: Of the file.
    """
    images = [instance.image for instance in float_metadata.selftest.instances]
    self_test = export.make_self_test(model_file, images, float_metadata.input, precision)
    return float_metadata.model_copy(
        update={"precision": precision, "selftest": self_test, "parity": (), "accuracy": ()}
    )


def proven(metadata: ModelMetadata, found: Verification) -> ModelMetadata:
    """``metadata`` with what was proven and measured; the accuracy is that of the file itself."""
    form = "onnx" if metadata.precision is Precision.FP32 else metadata.precision.value
    accuracy = [result for result in found.accuracy if result.form == form]
    return metadata.model_copy(update={"parity": _parities(found.checks), "accuracy": _accuracies(accuracy)})


def _fold_summary(fold: FoldOutcome) -> FoldSummary:
    return FoldSummary(
        objective=fold.objective,
        batch_norms=len(fold.fates),
        folded=fold.count("folded"),
        kept=fold.count("kept"),
        affine_maps_left=fold.affine_maps_left,
        error=fold.error,
    )


def clearest(images: NDArray[np.uint8], logits: NDArray[np.floating]) -> NDArray[np.uint8]:
    """Pictures with the clearest answers, of different labels as far as there are.

    The top-1 label of a self-test must agree on every machine, and a near tie would not.

    Args:
        images: uint8 [N, H, W, C].
        logits: float [N, K] of them.
    """
    ordered = np.sort(logits, axis=1)
    by_margin = np.argsort(ordered[:, -2] - ordered[:, -1], kind="stable")
    firsts = np.sort(np.unique(logits.argmax(axis=1)[by_margin], return_index=True)[1])
    others = np.setdiff1d(np.arange(len(images)), firsts)
    chosen: NDArray[np.uint8] = images[by_margin[np.concatenate([firsts, others])][:SELF_TEST_INSTANCES]]
    return chosen


def write_and_replay(graph: ir.Model, description: ModelMetadata, folder: Path) -> str:
    """Writes one file and proves it once more where it lies.

    Returns:
        Its sha256.

    Raises:
        VerificationFailed: It does not give the logits of its own self-test.
    """
    path = folder / description.precision.file_name
    digest = export.write_model_file(graph, path, description)
    verification.require([verification.self_test_replay(path, description)])
    return digest


def _self_test_images(model_file: Path, dataset: ImageDataset) -> tuple[bytes, ...]:
    images = dataset.test.images[:SELF_TEST_CANDIDATES]
    logits = predict(open_session(model_file), images, dataset.contract)
    return export.self_test_images(clearest(images, logits), dataset.contract)


def _reference(model_file: Path, dataset: ImageDataset) -> ReferenceDistributions:
    train = dataset.train
    step = -(-len(train) // REFERENCE_INSTANCES)
    images: NDArray[np.uint8] = np.ascontiguousarray(train.images[::step])
    logits = predict(open_session(model_file), images, dataset.contract)
    sizes = None if train.sizes is None else train.sizes[::step]
    probabilities = verification.activate(logits, task_of(dataset))
    return export.reference_distributions(images, probabilities, sizes)


def _parities(checks: Sequence[ParityCheck]) -> tuple[Parity, ...]:
    return tuple(
        Parity(check=each.check, error=each.error, tolerance=each.tolerance, instances=each.instances)
        for each in checks
    )


def _accuracies(results: Sequence[AccuracyResult]) -> tuple[Accuracy, ...]:
    return tuple(
        Accuracy(dataset=each.dataset, split=each.split, instances=each.instances, value=each.value)
        for each in results
    )
