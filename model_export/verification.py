"""The proofs that a model file is the network it was made from. One that fails publishes nothing.

::

    network, float64 ── the reference: everything else is compared with it
       ├─ fold.float64        folded program in float64          the algebra is exact
       ├─ fold.float32        folded program as it is exported   rounding stays small
       ├─ onnx.plain          the file, no graph optimisation    the export says the same
       ├─ onnx.optimised      the file as it will be served      … and the runtime's rewrites too
       ├─ onnx.probabilities  its second output
       └─ onnx.batch_mates    an instance alone, in company, in another place of the batch
    network, float32
       ├─ top1.folded, top1.onnx     the same answer for every held-back picture
       └─ labels.onnx                … and under the same name
    self-test, through the service's decoder
       ├─ selftest.logits     what it expects is what the network says
       └─ selftest.replay     … and what the file gives

The unfolded float32 network is no reference: it rounds more than a good fold does.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from model_export.errors import VerificationFailed
from model_export.evaluation import Session, open_session, predict
from model_export.records import AnswerQuality, LabelQuality, ParityCheck
from service.artifact import (
    INPUT_NAME,
    PROBABILITIES_NAME,
    InputContract,
    ModelMetadata,
    Task,
)
from service.images import decode

Logits = NDArray[np.floating]
Pixels = NDArray[np.uint8]

# Float64 rounds at 1.1e-16. A few thousand terms a sum and tens of layers leave four digits' room.
FLOAT64_TOLERANCE: Final = 1e-12
# Float32 rounds at 6e-8; the same reasoning, and blocked sums differ between kernels.
FLOAT32_TOLERANCE: Final = 1e-5
# Absolute: a probability is at most 1, and softmax does not enlarge a difference of logits.
PROBABILITY_TOLERANCE: Final = 1e-5
# Fewer bits, coarser steps: where a value lies between two of them, another blocking of the same sum may
# take the other one. Looking at the batch does far more.
COARSE_TOLERANCE: Final = 1e-2
# A badly conditioned network loses digits in float32 whatever its form. The fold may lose no more
# than the network itself does, give or take the luck of single roundings.
ILL_CONDITIONED_ALLOWANCE: Final = 2.0

_CALIBRATION_BINS: Final = 10
_COMPANY: Final = 16  # batch of the batch-mates proof: several vector widths, odd and even places


def measure(check: str, candidate: Logits, reference: Logits, tolerance: float) -> ParityCheck:
    """max|candidate − reference| / max|reference|; infinite where shapes differ or a value is no number.

    Args:
        check: Its name in reports.
        candidate: Any shape.
        reference: The same shape.
        tolerance: Of the error.
    """
    return ParityCheck(check, _relative_error(candidate, reference), tolerance, len(reference))


def require(checks: Sequence[ParityCheck]) -> tuple[ParityCheck, ...]:
    """The checks, all passed.

    Raises:
        VerificationFailed: Names every one that is not.
    """
    failed = [check for check in checks if not check.passed]
    if failed:
        raise VerificationFailed("; ".join(_sentence(check) for check in failed) + "; nothing was published")
    return tuple(checks)


def fold_checks(
    reference: Logits, unfolded: Logits, *, folded_float64: Logits, folded: Logits
) -> tuple[ParityCheck, ...]:
    """Folded ≡ unfolded in both precisions.

    Args:
        reference: float64 [N, K] of the unfolded network in float64.
        unfolded: float32 [N, K] of the network as it is, for its own rounding.
        folded_float64: float64 [N, K] of the network folded in float64.
        folded: float32 [N, K] of the program that is exported.
    """
    return (
        measure("fold.float64", folded_float64, reference, FLOAT64_TOLERANCE),
        measure("fold.float32", folded, reference, float32_tolerance(reference, unfolded)),
    )


def float32_tolerance(reference: Logits, unfolded: Logits) -> float:
    """What float32 may lose in this network, in any of its forms.

    Args:
        reference: float64 [N, K] of the network in float64.
        unfolded: float32 [N, K] of the same network.
    """
    return max(FLOAT32_TOLERANCE, ILL_CONDITIONED_ALLOWANCE * _relative_error(unfolded, reference))


def file_checks(
    model_file: Path,
    images: Pixels,
    contract: InputContract,
    reference: Logits,
    *,
    task: Task,
    tolerance: float,
) -> tuple[ParityCheck, ...]:
    """ONNX ≡ torch, with and without the runtime's optimisations, whatever the batch.

    Args:
        model_file: The ONNX file.
        images: uint8 [N, H, W, C], the pictures of ``reference``.
        contract: Their contract.
        reference: float64 [N, K].
        task: What the probabilities must be.
        tolerance: As `float32_tolerance` says.
    """
    session = open_session(model_file)
    served = predict(session, images, contract)
    plain = predict(open_session(model_file, optimised=False), images, contract)
    probabilities = _absolute_error(_probabilities(session, images), activate(reference, task))
    return (
        measure("onnx.plain", plain, reference, tolerance),
        measure("onnx.optimised", served, reference, tolerance),
        ParityCheck("onnx.probabilities", probabilities, PROBABILITY_TOLERANCE, len(images)),
        _batch_mates_check(session, images[:_COMPANY], contract, tolerance),
    )


def company_checks(
    model_file: Path, images: Pixels, contract: InputContract, task: Task, *, prefix: str
) -> tuple[ParityCheck, ...]:
    """What must hold for a file of any precision: batch mates do not matter, probabilities fit logits.

    Args:
        model_file: The ONNX file.
        images: uint8 [N, H, W, C].
        contract: Their contract.
        task: What the probabilities must be.
        prefix: Of the checks' names.
    """
    session = open_session(model_file)
    few = images[:_COMPANY]
    logits = predict(session, few, contract).astype(np.float64)
    error = _absolute_error(_probabilities(session, few), activate(logits, task))
    mates = _batch_mates_check(session, few, contract, COARSE_TOLERANCE)
    return (
        ParityCheck(f"{prefix}.batch_mates", mates.error, mates.tolerance, mates.instances),
        ParityCheck(f"{prefix}.probabilities", error, COARSE_TOLERANCE, len(few)),
    )


def answer_checks(
    unfolded: Logits, folded: Logits, served: Logits, *, labels: Sequence[str], served_labels: Sequence[str]
) -> tuple[ParityCheck, ...]:
    """The same answer, under the same name, for every held-back picture.

    Args:
        unfolded: float32 [N, K] of the network.
        folded: float32 [N, K] of the folded program.
        served: float32 [N, K] of the model file.
        labels: The network's, in the order of its logits.
        served_labels: The model file's.
    """
    named = np.asarray(labels)[unfolded.argmax(axis=1)]
    served_names = np.asarray(served_labels)[unfolded.argmax(axis=1)]
    wrong_names = float(np.mean(named != served_names))
    return (
        ParityCheck("top1.folded", _share_of_other_answers(folded, unfolded), 0.0, len(unfolded)),
        ParityCheck("top1.onnx", _share_of_other_answers(served, unfolded), 0.0, len(unfolded)),
        ParityCheck("labels.onnx", wrong_names, 0.0, len(unfolded)),
    )


def self_test_pixels(metadata: ModelMetadata) -> Pixels:
    """The self-test's pictures as the service sees them, uint8 [M, H, W, C]."""
    return np.stack([decode(instance.image, metadata.input) for instance in metadata.selftest.instances])


def self_test_checks(
    model_file: Path, metadata: ModelMetadata, reference: Logits, tolerance: float
) -> tuple[ParityCheck, ...]:
    """The self-test says what the network says, and the file says what the self-test says.

    Args:
        model_file: The finished file.
        metadata: What it says about itself.
        reference: float64 [M, K] of the network, for `self_test_pixels`.
        tolerance: As `float32_tolerance` says.
    """
    expected = np.asarray([instance.logits for instance in metadata.selftest.instances])
    return (
        measure("selftest.logits", expected, reference, tolerance),
        self_test_replay(model_file, metadata),
    )


def self_test_replay(model_file: Path, metadata: ModelMetadata) -> ParityCheck:
    """The file's own self-test, as the service replays it."""
    expected = np.asarray([instance.logits for instance in metadata.selftest.instances])
    logits = predict(open_session(model_file), self_test_pixels(metadata), metadata.input)
    return measure("selftest.replay", logits, expected, metadata.selftest.tolerance["cpu"])


def answer_quality(logits: Logits, targets: NDArray[np.int64]) -> AnswerQuality:
    """Confusion matrix, quality of each label and calibration of one form's answers.

    Args:
        logits: float [N, K].
        targets: int64 [N], label indices; or [N, K] of 0 and 1, where every label is its own question.
    """
    if targets.ndim == 1:
        probabilities = activate(logits, Task.MULTICLASS)
        answers = logits.argmax(axis=1)
        counts = np.zeros((logits.shape[1],) * 2, dtype=np.int64)
        np.add.at(counts, (targets, answers), 1)
        labels = _label_qualities(counts.sum(axis=1), counts.diagonal(), counts.sum(axis=0))
        confusion = tuple(tuple(int(count) for count in row) for row in counts)
        return _answer_quality(probabilities.max(axis=1), answers == targets, labels, confusion)
    chances, present = activate(logits, Task.MULTILABEL), logits > 0
    labels = _label_qualities(targets.sum(axis=0), (present * targets).sum(axis=0), present.sum(axis=0))
    return _answer_quality(
        np.maximum(chances, 1 - chances).ravel(), (present == targets).ravel(), labels, confusion=()
    )


def activate(logits: Logits, task: Task) -> Logits:
    """Probabilities of ``logits`` [N, K]: softmax or sigmoid, in their own precision."""
    if task is Task.MULTILABEL:
        chances: Logits = 1 / (1 + np.exp(-logits))
        return chances
    powers: Logits = np.exp(logits - logits.max(axis=1, keepdims=True))
    powers /= powers.sum(axis=1, keepdims=True)
    return powers


def _label_qualities(
    instances: NDArray[np.integer], found: NDArray[np.integer], answered: NDArray[np.integer]
) -> tuple[LabelQuality, ...]:
    """One a label, from counts [K]."""
    return tuple(LabelQuality(*map(int, counts)) for counts in zip(instances, found, answered, strict=True))


def _answer_quality(
    confidence: Logits,
    right: NDArray[np.bool_],
    labels: tuple[LabelQuality, ...],
    confusion: tuple[tuple[int, ...], ...],
) -> AnswerQuality:
    """Expected calibration error over ten bins of confidence. Source: Guo et al. 2017, section 2."""
    bins = np.minimum((confidence * _CALIBRATION_BINS).astype(int), _CALIBRATION_BINS - 1)
    instances = np.bincount(bins, minlength=_CALIBRATION_BINS)
    filled = np.maximum(instances, 1)
    confident = np.bincount(bins, weights=confidence, minlength=_CALIBRATION_BINS) / filled
    correct = np.bincount(bins, weights=right, minlength=_CALIBRATION_BINS) / filled
    return AnswerQuality(
        labels=labels,
        confusion=confusion,
        confidence=tuple(map(float, confident)),
        right=tuple(map(float, correct)),
        instances=tuple(map(int, instances)),
        calibration_error=float(np.average(np.abs(confident - correct), weights=instances)),
    )


def _batch_mates_check(
    session: Session, images: Pixels, contract: InputContract, tolerance: float
) -> ParityCheck:
    """Each picture alone is the reference; company is the same ones, reversed, and extreme ones."""
    alone = np.concatenate([predict(session, image[np.newaxis], contract) for image in images])
    together = predict(session, images, contract)
    reversed_order = predict(session, np.ascontiguousarray(images[::-1]), contract)[::-1]
    strangers = np.concatenate([images, 255 - images, np.zeros_like(images)])
    among_strangers = predict(session, strangers, contract)[: len(images)]
    worst = max(_relative_error(rows, alone) for rows in (together, reversed_order, among_strangers))
    return ParityCheck("onnx.batch_mates", worst, tolerance, len(images))


def _probabilities(session: Session, images: Pixels) -> NDArray[np.float32]:
    batches = range(0, len(images), _COMPANY)
    return np.concatenate(
        [session.run([PROBABILITIES_NAME], {INPUT_NAME: images[at : at + _COMPANY]})[0] for at in batches]
    )


def _share_of_other_answers(candidate: Logits, reference: Logits) -> float:
    """Share of rows whose largest logit is another one.

    Two logits that are equal up to rounding have no largest one, so a row counts only where the
    reference's margin over the candidate's answer is more than rounding.
    """
    if candidate.shape != reference.shape:
        return float("inf")
    rows = np.arange(len(reference))
    margin = reference.max(axis=1) - reference[rows, candidate.argmax(axis=1)]
    return float(np.mean(margin > FLOAT32_TOLERANCE * np.abs(reference).max()))


def _relative_error(candidate: Logits, reference: Logits) -> float:
    scale = float(np.abs(reference).max(initial=0))
    return _absolute_error(candidate, reference) / scale if scale > 0 else float("inf")


def _absolute_error(candidate: Logits, reference: Logits) -> float:
    if candidate.shape != reference.shape or not (
        np.isfinite(candidate).all() and np.isfinite(reference).all()
    ):
        return float("inf")
    return float(np.abs(candidate.astype(np.float64) - reference).max(initial=0))


def _sentence(check: ParityCheck) -> str:
    return (
        f"{check.check}: error {check.error:.3g} exceeds {check.tolerance:.3g} "
        f"on {check.instances} instance(s)"
    )
