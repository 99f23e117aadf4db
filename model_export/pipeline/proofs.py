"""What has to be computed for the proofs: logits of every form of the network."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

from torch import nn
from torch.export import ExportedProgram

from model_export import verification
from model_export.data import ImageDataset
from model_export.evaluation import accuracy, open_session, predict, share_right
from model_export.pipeline import networks
from model_export.records import AccuracyResult, Objective, ParityCheck, Verification
from model_export.verification import Logits
from service.artifact import ModelMetadata

# Float64 is slow and an unoptimised graph slower, so the numeric proofs take a sample; the answers are
# compared on every held-back picture.
PARITY_INSTANCES = 256


@dataclass(frozen=True, slots=True)
class _Forms:
    """Logits of the held-back pictures, float32 [N, K], by the form of the network that gave them."""

    unfolded: Logits
    folded: Logits
    served: Logits


def verify_file(
    model_file: Path,
    metadata: ModelMetadata,
    *,
    network: nn.Module,
    folded: ExportedProgram,
    dataset: ImageDataset,
    objective: Objective,
) -> Verification:
    """Every proof about ``model_file``, and its accuracy.

    Args:
        model_file: The finished file.
        metadata: What it says about itself.
        network: The unfolded network, float32. Not modified.
        folded: The program that the file was made from.
        dataset: Its test split is the held-back one.
        objective: How ``folded`` was folded.

    Raises:
        VerificationFailed: A proof did not hold.
    """
    images, contract = dataset.test.images, dataset.contract
    forms = _Forms(*(predict(form, images, contract) for form in (network, folded, open_session(model_file))))
    sample = images[:PARITY_INSTANCES]
    double = copy.deepcopy(network).double()
    reference = predict(double, sample, contract)
    unfolded = forms.unfolded[:PARITY_INSTANCES]
    folded_double = predict(networks.folded(double, dataset.input_shape, objective).program, sample, contract)
    self_test = verification.self_test_pixels(metadata)
    tolerance = verification.float32_tolerance(reference, unfolded)
    checks = verification.require(
        (
            *verification.fold_checks(
                reference, unfolded, folded_float64=folded_double, folded=forms.folded[:PARITY_INSTANCES]
            ),
            *verification.file_checks(
                model_file, sample, contract, reference, task=metadata.task, tolerance=tolerance
            ),
            *verification.answer_checks(
                forms.unfolded,
                forms.folded,
                forms.served,
                labels=dataset.labels,
                served_labels=metadata.labels,
            ),
            *verification.self_test_checks(
                model_file, metadata, predict(double, self_test, contract), tolerance
            ),
        )
    )
    return Verification(
        checks, _accuracies(forms, dataset), verification.answer_quality(forms.served, dataset.test.targets)
    )


def verify_precision(
    model_file: Path,
    metadata: ModelMetadata,
    *,
    float_file: Path,
    dataset: ImageDataset,
    max_accuracy_drop: float,
) -> Verification:
    """The proofs about a file of another precision: it rounds more, but answers as well.

    Args:
        model_file: The finished int8 or fp16 file.
        metadata: What it says about itself.
        float_file: The proven float32 file.
        dataset: Its validation split decides, its test split is only measured on.
        max_accuracy_drop: Points of accuracy.

    Raises:
        VerificationFailed: A proof did not hold.
    """
    name, contract, judges = metadata.precision.value, dataset.contract, dataset.validation
    drop = (
        accuracy(open_session(float_file), dataset, "validation", name="onnx").value
        - accuracy(open_session(model_file), dataset, "validation", name=name).value
    )
    images, targets = dataset.test.images, dataset.test.targets
    checks = verification.require(
        (
            # A gain is no error.
            ParityCheck(f"{name}.accuracy_drop", max(0.0, drop), max_accuracy_drop / 100, len(judges)),
            *verification.company_checks(model_file, images, contract, metadata.task, prefix=name),
            verification.self_test_replay(model_file, metadata),
        )
    )
    logits = predict(open_session(model_file), images, contract)
    held_back = AccuracyResult(name, dataset.name, "test", len(targets), share_right(logits, targets))
    return Verification(checks, (held_back,), verification.answer_quality(logits, targets))


def _accuracies(forms: _Forms, dataset: ImageDataset) -> tuple[AccuracyResult, ...]:
    targets = dataset.test.targets
    named = (("unfolded", forms.unfolded), ("folded", forms.folded), ("onnx", forms.served))
    return tuple(
        AccuracyResult(form, dataset.name, "test", len(targets), share_right(logits, targets))
        for form, logits in named
    )
