"""Adopting a classifier from another framework: wrapped, proven against the original, published.

The original runs as it came, in ONNX Runtime, on inputs that are normalised here in numpy; the wrapped
file gets the pixels. They must agree. Its accuracy is measured where a data set is named.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from rich.console import Console
from sklearn.datasets import load_sample_images

from model_export import data, export, quantization, report, verification
from model_export.config import AdoptConfig, RunConfig
from model_export.data import ImageDataset
from model_export.errors import InvalidConfig, ModelError
from model_export.evaluation import open_session, predict, share_right
from model_export.export import Foreign, Layout
from model_export.pipeline import metadata, precisions, summaries
from model_export.pipeline.progress import shown
from model_export.pipeline.publication import next_version, require_writable
from model_export.pipeline.versions import publish_version
from model_export.records import AccuracyResult, ParityCheck, PrecisionOutcome, Verification
from service.artifact import InputContract, ModelMetadata, Precision, Task
from service.images import decode

PROOF_INSTANCES = 256
CROPS = 16  # of each of scikit-learn's photographs, where no data set is named
_SUM_TOLERANCE = 1e-3  # of the probabilities of a picture, which may be float16
_FLOATS = {"tensor(float)": np.float32, "tensor(double)": np.float64, "tensor(float16)": np.float16}


@dataclass(frozen=True, slots=True)
class _Subject:
    """What is adopted, and what it is proven on.

    Attributes:
        foreign: The classifier.
        contract: How pictures become its input.
        images: uint8 [N, H, W, C].
        dataset: None: the images have no labels.
        expected: float64 [M, K], what the original gives for the first M images.
        labels: K.
    """

    foreign: Foreign
    contract: InputContract
    images: NDArray[np.uint8]
    dataset: ImageDataset | None
    expected: NDArray[np.float64]
    labels: tuple[str, ...]


def adopt(config: RunConfig, adoption: AdoptConfig, *, has_dataset: bool, console: Console) -> Path:
    """Wraps, proves and publishes an ONNX classifier.

    Args:
        config: Name, repository, how pictures become inputs, labels.
        adoption: The file, and what its output is.
        has_dataset: Whether ``config.data`` names a data set to measure on; else the proofs use
            scikit-learn's two photographs.
        console: Where progress is shown.

    Returns:
        The published version's folder.

    Raises:
        InvalidConfig: Its pictures' size or its labels cannot be known from what was said, or nothing in
            it could be made smaller.
        ModelError: The file cannot be served.
        VerificationFailed: It answers differently once wrapped.
    """
    version = next_version(config.repository, config.name)  # an impossible name is refused before any work
    require_writable(config.repository)
    if config.quantize.precisions and not has_dataset:
        raise InvalidConfig(
            "--precisions: another precision is judged by its accuracy; name a data set with --dataset"
        )
    with shown(f"reading {adoption.file} and asking it", console):
        subject = _examine(config, adoption, has_dataset, console)
    graph = export.adopted_graph(
        subject.foreign, subject.contract, Task(adoption.task), len(subject.labels), adoption.output
    )
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Precision.FP32.file_name
        with shown("writing the model file", console):
            export.write_model_file(graph, path)
            description = _describe(graph, path, subject, config, adoption, version)
            export.write_model_file(graph, path, description)
        with shown("proving", console):
            found = _verify(path, description, subject, adoption)
        summaries.print_verification(found, console)
        export.write_model_file(graph, path, metadata.proven(description, found))
        outcomes = _other_precisions(path, subject, config, console)
        facts = report.Facts(
            config=config,
            data=None if subject.dataset is None else metadata.summarise(subject.dataset),
            adoption=adoption,
            verification=found,
            precisions=outcomes,
        )
        return publish_version(path.parent, config, facts, console)


def _examine(config: RunConfig, adoption: AdoptConfig, has_dataset: bool, console: Console) -> _Subject:
    foreign = export.read_foreign(adoption.file, shape=config.data.input, output=adoption.output_name)
    if foreign.shape is None:
        raise InvalidConfig(f"{adoption.file} leaves the size of its pictures open: say --input CxHxW")
    settings = replace(
        config.data,
        input=foreign.shape,
        # Nothing is measured: what the network was trained with is not in the file.
        mean=config.data.mean or (0.0,),
        std=config.data.std or (1.0,),
    )
    contract = data.contract_for(settings, foreign.shape)
    dataset = None
    if has_dataset:
        dataset = data.load_dataset(settings, labels=config.model.labels, console=console)
        if config.model.labels is None and foreign.labels and set(dataset.labels) <= set(foreign.labels):
            dataset = data.reordered(dataset, foreign.labels)  # "10" comes before "2" in a list of folders
    images = _photographs(contract) if dataset is None else dataset.test.images
    expected = _original_answers(adoption.file, foreign, contract, images[:PROOF_INSTANCES])
    _check_answers(expected, adoption)
    _check_meaning(expected, adoption)
    labels = _labels(config, foreign, dataset, expected.shape[1])
    return _Subject(foreign, contract, images, dataset, expected, labels)


def _photographs(contract: InputContract) -> NDArray[np.uint8]:
    """Crops of scikit-learn's two photographs, of all sizes, through the service's decoder."""
    generator = np.random.default_rng(0)
    pictures = []
    for photograph in load_sample_images().images:
        for _ in range(CROPS):
            side = int(generator.integers(min(64, photograph.shape[0]), photograph.shape[0] + 1))
            top = int(generator.integers(photograph.shape[0] - side + 1))
            left = int(generator.integers(photograph.shape[1] - side + 1))
            crop = np.ascontiguousarray(photograph[top : top + side, left : left + side])
            pictures.append(decode(data.encode_png(crop), contract))
    return np.stack(pictures)


def _original_answers(
    path: Path, foreign: Foreign, contract: InputContract, images: NDArray[np.uint8]
) -> NDArray[np.float64]:
    """What the file itself gives, float64 [N, K], normalised without any of the wrapping."""
    try:
        session = ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        (source,) = session.get_inputs()
        pixels = _normalised(images, contract, foreign.layout).astype(_FLOATS[source.type])
        size = source.shape[0] if isinstance(source.shape[0], int) else len(pixels)
        whole = len(pixels) - len(pixels) % size  # a file for one size of batch takes whole ones only
        answers = [
            _as_rows(session.run([foreign.output], {source.name: pixels[at : at + size]})[0])
            for at in range(0, whole, size)
        ]
    except Exception as error:  # the runtime raises classes of its own, without a common root
        raise ModelError(f"{path}: ONNX Runtime cannot run it: {str(error).splitlines()[0]}") from error
    return np.concatenate(answers)


def _normalised(images: NDArray[np.uint8], contract: InputContract, layout: Layout) -> NDArray[np.float64]:
    pixels: NDArray[np.float64] = (images / 255 - np.asarray(contract.mean)) / np.asarray(contract.std)
    if layout is Layout.CHANNELS_FIRST:
        return np.ascontiguousarray(pixels.transpose(0, 3, 1, 2))
    return pixels.reshape(len(pixels), -1) if layout is Layout.FLAT else pixels


def _as_rows(answer: NDArray[np.floating] | list[dict[object, float]]) -> NDArray[np.float64]:
    """[N, K], also of one map from label to probability a picture, or of [N, K, 1, 1]."""
    rows = [list(each.values()) for each in answer] if isinstance(answer, list) else answer
    return np.asarray(rows, dtype=np.float64).reshape(len(rows), -1)


def _check_answers(answers: NDArray[np.float64], adoption: AdoptConfig) -> None:
    """Checks that ``answers``, float64 [N, K], are answers to the pictures at all.

    Raises:
        ModelError: They are not.
    """
    if answers.shape[1] < 2:
        raise ModelError(f"{adoption.file}: one number a picture; a classifier gives one for each label")
    if not np.isfinite(answers).all():
        raise ModelError(f"{adoption.file}: not every answer is a finite number; do --mean and --std fit it?")
    if (answers == answers[0]).all():
        raise ModelError(f"{adoption.file}: the same answer to {len(answers)} different pictures")


def _check_meaning(answers: NDArray[np.float64], adoption: AdoptConfig) -> None:
    """Checks that ``answers`` can be what they are said to be: the proofs compare numbers, not meanings.

    Args:
        answers: float64 [N, K], the original's.
        adoption: What they are said to be.

    Raises:
        InvalidConfig: Probabilities said to be logits, or logits said to be probabilities.
    """
    sums = answers.sum(axis=1)
    are_shares = answers.min() >= 0 and answers.max() <= 1 + _SUM_TOLERANCE
    sum_to_one = np.abs(sums - 1).max() <= _SUM_TOLERANCE
    said = f"{adoption.file}: --output {adoption.output} --task {adoption.task}, but"
    if adoption.output == "logits":
        if are_shares and (sum_to_one or adoption.task == "multilabel"):
            raise InvalidConfig(f"{said} its answers are probabilities; say --output probabilities")
    elif not are_shares:
        reach = f"from {answers.min():.3g} to {answers.max():.3g}"
        raise InvalidConfig(f"{said} its answers reach {reach}; say --output logits")
    elif adoption.task == "multiclass" and not sum_to_one:
        reach = f"{sums.min():.3g} … {sums.max():.3g}"
        raise InvalidConfig(
            f"{said} those of a picture sum to {reach}; if several labels can be right, say --task multilabel"
        )


def _labels(
    config: RunConfig, foreign: Foreign, dataset: ImageDataset | None, classes: int
) -> tuple[str, ...]:
    """Labels from whoever knows them: the user, the data set, the file; else numbers."""
    if config.model.labels is not None:
        labels = data.read_labels(config.model.labels)
    elif dataset is not None:
        labels = dataset.labels
    else:
        labels = foreign.labels or tuple(map(str, range(classes)))
    if len(labels) != classes:
        raise InvalidConfig(f"{len(labels)} labels for {classes} outputs; say --labels FILE, one a line")
    return labels


def _describe(
    graph: ir.Model,
    path: Path,
    subject: _Subject,
    config: RunConfig,
    adoption: AdoptConfig,
    version: int,
) -> ModelMetadata:
    try:
        logits = predict(open_session(path), subject.images, subject.contract)
    except Exception as error:  # the runtime raises classes of its own, without a common root
        raise ModelError(
            f"{adoption.file}: it cannot take batches of other sizes than it was exported with; "
            "export it with a dynamic batch dimension"
        ) from error
    images = metadata.clearest(subject.images, logits)
    encoded = export.self_test_images(images, subject.contract)
    task = Task(adoption.task)
    return ModelMetadata(
        name=config.name,
        version=str(version),
        created_at=datetime.now(UTC),
        task=task,
        labels=subject.labels,
        input=subject.contract,
        precision=Precision.FP32,
        architecture=adoption.file.name,
        fold=None,
        reference=export.reference_distributions(subject.images, verification.activate(logits, task), None),
        producer=export.producer(graph, torch_version=None),
        selftest=export.make_self_test(path, encoded, subject.contract, Precision.FP32),
    )


def _verify(path: Path, description: ModelMetadata, subject: _Subject, adoption: AdoptConfig) -> Verification:
    session = open_session(path)
    images = subject.images[: len(subject.expected)]
    answers = session.run([adoption.output], {"images": images})[0]
    checks = verification.require(
        (
            verification.measure("adopt.original", answers, subject.expected, verification.FLOAT32_TOLERANCE),
            ParityCheck(
                "adopt.top1",
                float(np.mean(answers.argmax(axis=1) != subject.expected.argmax(axis=1))),
                0.0,
                len(images),
            ),
            *verification.company_checks(path, images, subject.contract, description.task, prefix="adopt"),
            verification.self_test_replay(path, description),
        )
    )
    return _measured(path, subject, checks)


def _other_precisions(
    path: Path, subject: _Subject, config: RunConfig, console: Console
) -> tuple[PrecisionOutcome, ...]:
    if not config.quantize.precisions or subject.dataset is None:
        return ()
    source = quantization.fold_in_runtime(path, path.with_name("folded.onnx"))
    return tuple(
        precisions.make(path, Precision(each), subject.dataset, config.quantize, console, source=source)
        for each in config.quantize.precisions
    )


def _measured(path: Path, subject: _Subject, checks: tuple[ParityCheck, ...]) -> Verification:
    if subject.dataset is None:
        return Verification(checks, (), None)
    targets = subject.dataset.test.targets
    logits = predict(open_session(path), subject.images, subject.contract)
    accuracy = AccuracyResult(
        "onnx", subject.dataset.name, "test", len(targets), share_right(logits, targets)
    )
    return Verification(checks, (accuracy,), verification.answer_quality(logits, targets))
