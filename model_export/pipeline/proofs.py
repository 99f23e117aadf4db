"""What has to be computed for the proofs: logits of every form of the network."""

from __future__ import annotations

import copy
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from model_export import verification
from model_export.data import ImageDataset
from model_export.errors import ModelError
from model_export.evaluation import open_session, predict, share_right
from model_export.folding import FoldResult, fold
from model_export.records import AccuracyResult, Objective, Verification
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
    folded_double = predict(fold_network(double, dataset, objective).program, sample, contract)
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


def fold_network(network: nn.Module, dataset: ImageDataset, objective: Objective) -> FoldResult:
    """``network`` folded for batches of any size.

    Raises:
        FoldRefused: A BatchNorm that is no constant affine map.
        ModelError: The network cannot be traced.
    """
    example = example_batch(network, dataset.input_shape)
    return fold(network, (example,), objective=objective, dynamic_shapes=({0: Dim("batch")},))


def trace_network(network: nn.Module, dataset: ImageDataset) -> ExportedProgram:
    """``network`` as a program, nothing folded.

    Raises:
        ModelError: It cannot be traced.
    """
    example = example_batch(network, dataset.input_shape)
    try:
        return torch.export.export(network.eval(), (example,), dynamic_shapes=({0: Dim("batch")},))
    except Exception as error:  # torch.export raises whatever the traced code raises
        raise ModelError(f"torch.export cannot trace the network: {str(error).splitlines()[0]}") from error


def example_batch(network: nn.Module, input_shape: tuple[int, int, int]) -> torch.Tensor:
    """What a network is traced with: two instances, since torch.export takes one for a constant size."""
    dtype = next((parameter.dtype for parameter in network.parameters()), torch.float32)
    generator = torch.Generator().manual_seed(0)
    return torch.randn((2, *input_shape), generator=generator, dtype=dtype)


def _accuracies(forms: _Forms, dataset: ImageDataset) -> tuple[AccuracyResult, ...]:
    targets = dataset.test.targets
    named = (("unfolded", forms.unfolded), ("folded", forms.folded), ("onnx", forms.served))
    return tuple(
        AccuracyResult(form, dataset.name, "test", len(targets), share_right(logits, targets))
        for form, logits in named
    )
