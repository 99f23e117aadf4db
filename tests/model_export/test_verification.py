"""The proofs prove themselves: each mutant below is a file that must not be published."""

from __future__ import annotations

import copy
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
import pytest
import torch
from torch import nn
from torch.export import ExportedProgram

from model_export import export, verification
from model_export.data import ImageDataset
from model_export.errors import VerificationFailed
from model_export.evaluation import predict
from model_export.export.serving import constant
from model_export.pipeline import networks
from model_export.pipeline.proofs import verify_file
from model_export.pipeline.run import Run
from model_export.records import ParityCheck
from service.artifact import Interpolation, ModelMetadata, Task

Mutant = Callable[[ir.Graph], None]


def served_file(
    program: ExportedProgram, digits: ImageDataset, path: Path, mutate: Mutant | None = None
) -> Path:
    """A model file of ``program``, mutated."""
    network = export.network_graph(program)
    export.lower(network)
    graph = export.served_graph(network, digits.contract, Task.MULTICLASS, 10)
    if mutate is not None:
        mutate(graph.graph)
    export.write_model_file(graph, path)
    return path


def checks_of(path: Path, article: nn.Module, digits: ImageDataset) -> dict[str, ParityCheck]:
    """All checks that look at the file."""
    images = digits.test.images[:64]
    double = copy.deepcopy(article).double()
    checks = verification.file_checks(
        path,
        images,
        digits.contract,
        predict(double, images, digits.contract),
        task=Task.MULTICLASS,
        tolerance=verification.FLOAT32_TOLERANCE,
    )
    return {check.check: check for check in checks}


def test_a_true_file_passes(article: nn.Module, digits: ImageDataset, tmp_path: Path) -> None:
    for objective in ("fewest", "speed"):
        program = networks.folded(article, digits.input_shape, objective).program
        path = served_file(program, digits, tmp_path / "model.onnx")
        assert all(check.passed for check in checks_of(path, article, digits).values())


# --- mutants of the network: what a wrong fold would make of it ---------------------------------


def forget_epsilon(norm: nn.modules.batchnorm._BatchNorm) -> None:
    norm.eps = 0.0


def forget_mean(norm: nn.modules.batchnorm._BatchNorm) -> None:
    assert norm.running_mean is not None
    norm.running_mean.zero_()


def forget_beta(norm: nn.modules.batchnorm._BatchNorm) -> None:
    norm.bias.data.zero_()


def take_variance_for_deviation(norm: nn.modules.batchnorm._BatchNorm) -> None:
    assert norm.running_var is not None
    norm.running_var.square_()


def mix_up_channels(norm: nn.modules.batchnorm._BatchNorm) -> None:
    norm.weight.data = norm.weight.data.roll(1)


@pytest.mark.parametrize(
    "mutate",
    [forget_epsilon, forget_mean, forget_beta, take_variance_for_deviation, mix_up_channels],
)
@pytest.mark.parametrize("layer", ["norm1", "norm2", "norm3"])
def test_a_wrong_fold_fails_in_both_precisions(
    mutate: Callable[[nn.Module], None], layer: str, article: nn.Module, digits: ImageDataset
) -> None:
    images = digits.test.images[:32]
    mutant = copy.deepcopy(article)
    mutate(mutant.get_submodule(layer))
    reference = predict(copy.deepcopy(article).double(), images, digits.contract)
    checks = verification.fold_checks(
        reference,
        predict(article, images, digits.contract),
        folded_float64=predict(copy.deepcopy(mutant).double(), images, digits.contract),
        folded=predict(mutant, images, digits.contract),
    )
    assert [check.passed for check in checks] == [False, False]


# --- mutants of the file ------------------------------------------------------------------------


def forget_normalisation(graph: ir.Graph) -> None:
    """The mean is not subtracted."""
    (subtract,) = (node for node in graph if node.name == "normalise/mean")
    source = subtract.inputs[0]
    assert source is not None
    subtract.outputs[0].replace_all_uses_with(source)
    graph.remove(subtract, safe=True)


def rotate_rows(graph: ir.Graph) -> None:
    """Each instance gets the logits of the one before it."""
    logits = graph.outputs[0]
    producer = logits.producer()
    assert producer is not None
    last = ir.node(
        "Slice",
        [logits, *(constant(graph, f"last{i}", np.asarray([n])) for i, n in enumerate((-1, 2**31, 0)))],
    )
    rest = ir.node(
        "Slice",
        [logits, *(constant(graph, f"rest{i}", np.asarray([n])) for i, n in enumerate((0, -1, 0)))],
    )
    replace_logits(graph, [last, rest, ir.node("Concat", [*last.outputs, *rest.outputs], {"axis": 0})])


def look_at_the_batch(graph: ir.Graph) -> None:
    """A little of the batch's mean is taken from every instance."""
    mean = ir.node("ReduceMean", [graph.outputs[0], constant(graph, "axis", np.asarray([0]))])
    little = constant(graph, "little", np.asarray(1e-2, dtype=np.float32))
    share = ir.node("Mul", [mean.outputs[0], little])
    replace_logits(graph, [mean, share, ir.node("Sub", [graph.outputs[0], share.outputs[0]])])


def permute_classes(graph: ir.Graph) -> None:
    """The logits come in another order."""
    order = constant(graph, "order", np.roll(np.arange(10), 1))
    replace_logits(graph, [ir.node("Gather", [graph.outputs[0], order], {"axis": 1})])


def swap_height_and_width(graph: ir.Graph) -> None:
    """The wrong axis: every picture is transposed."""
    (cast,) = (node for node in graph if node.name == "normalise/cast")
    source = cast.inputs[0]
    swap = ir.node("Transpose", [source], {"perm": [0, 1, 3, 2]})
    cast.replace_input_with(0, swap.outputs[0])
    graph.insert_before(cast, swap)


def forget_softmax(graph: ir.Graph) -> None:
    """The probabilities are a sigmoid's."""
    softmax = graph.outputs[1].producer()
    assert softmax is not None
    softmax.op_type = "Sigmoid"
    softmax.attributes.clear()


def replace_logits(graph: ir.Graph, nodes: list[ir.Node]) -> None:
    """Puts ``nodes`` between the logits and the output of that name."""
    old, new = graph.outputs[0], nodes[-1].outputs[0]
    producer = old.producer()
    assert producer is not None
    new.name, old.name = old.name, "logits.before"
    new.type, new.shape = old.type, old.shape
    inside = set(nodes)
    for use in list(old.uses()):
        if use.node not in inside:
            use.node.replace_input_with(use.idx, new)
    graph.insert_after(producer, nodes)
    graph.outputs[0] = new


@pytest.mark.parametrize(
    ("mutate", "check"),
    [
        (forget_normalisation, "onnx.plain"),
        (rotate_rows, "onnx.plain"),
        (rotate_rows, "onnx.batch_mates"),
        (look_at_the_batch, "onnx.batch_mates"),
        (permute_classes, "onnx.optimised"),
        (swap_height_and_width, "onnx.optimised"),
        (forget_softmax, "onnx.probabilities"),
    ],
)
def test_a_wrong_file_fails(
    mutate: Mutant, check: str, article: nn.Module, digits: ImageDataset, tmp_path: Path
) -> None:
    path = served_file(networks.trace(article, digits.input_shape), digits, tmp_path / "model.onnx", mutate)
    found = checks_of(path, article, digits)
    assert not found[check].passed
    with pytest.raises(VerificationFailed, match=f"{check}.*nothing was published"):
        verification.require(tuple(found.values()))


# --- answers, labels, self-test -----------------------------------------------------------------


def test_permuted_labels_fail() -> None:
    logits = np.eye(4, dtype=np.float32)
    checks = verification.answer_checks(
        logits, logits, logits, labels=tuple("abcd"), served_labels=tuple("bcda")
    )
    assert {check.check: check.passed for check in checks} == {
        "top1.folded": True,
        "top1.onnx": True,
        "labels.onnx": False,
    }


def test_one_other_answer_fails_and_a_tie_does_not() -> None:
    reference = np.asarray([[3.0, 1.0], [1.0, 2.0], [2.0, 2.0 + 1e-6]])
    other = reference.copy()
    other[1] = [2.0, 1.0]
    tied = reference.copy()
    tied[2] = [2.0 + 1e-6, 2.0]

    def top1(candidate: np.ndarray) -> ParityCheck:
        return verification.answer_checks(
            reference, candidate, reference, labels=("a", "b"), served_labels=("a", "b")
        )[0]

    assert top1(other).error == pytest.approx(1 / 3)
    assert top1(tied).passed


@pytest.mark.parametrize("wrong", ["a logit", "a picture", "the resize"])
def test_a_self_test_that_does_not_fit_the_file_fails(finished: Run, version: Path, wrong: str) -> None:
    path = version / "model.onnx"
    _, metadata = export.read_model_file(path)
    assert verification.self_test_replay(path, metadata).passed
    assert not verification.self_test_replay(path, spoiled(metadata, wrong)).passed


def spoiled(metadata: ModelMetadata, wrong: str) -> ModelMetadata:
    """Metadata whose self-test expects something else."""
    if wrong == "the resize":
        contract = metadata.input.model_copy(update={"interpolation": Interpolation.NEAREST})
        return metadata.model_copy(update={"input": contract})
    first, second, *rest = metadata.selftest.instances
    if wrong == "a logit":
        changed = first.model_copy(update={"logits": (first.logits[0] + 1, *first.logits[1:])})
    else:
        changed = first.model_copy(update={"image": second.image})
    instances = (changed, second, *rest)
    return metadata.model_copy(
        update={"selftest": metadata.selftest.model_copy(update={"instances": instances})}
    )


# --- the measure itself ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("candidate", "reference"),
    [
        (np.zeros((2, 3)), np.zeros((2, 3))),  # an all-zero network proves nothing
        (np.ones((2, 3)), np.ones((3, 2))),
        (np.full((2, 3), np.nan), np.ones((2, 3))),
        (np.ones((2, 3)), np.full((2, 3), np.inf)),
    ],
)
def test_what_cannot_be_compared_never_passes(candidate: np.ndarray, reference: np.ndarray) -> None:
    assert not verification.measure("x", candidate, reference, 1e9).passed


def test_an_ill_conditioned_network_may_lose_what_it_loses_unfolded() -> None:
    reference = np.asarray([[1.0, 2.0]])
    assert verification.float32_tolerance(reference, reference) == verification.FLOAT32_TOLERANCE
    assert verification.float32_tolerance(reference, reference + 0.01) == pytest.approx(0.01)


def test_the_article_network_keeps_the_whole_contract(article: nn.Module, digits: ImageDataset) -> None:
    """Fewest: nothing left; 1e-12 in float64; probabilities within 1e-5."""
    images = digits.test.images
    folded = networks.folded(article, digits.input_shape, "fewest")
    assert [fate.outcome for fate in folded.report] == ["folded"] * 3
    assert folded.report.affine_maps_left == 0
    assert folded.report.error <= 1e-12
    double = copy.deepcopy(article).double()
    reference = predict(double, images, digits.contract)
    exact = predict(networks.folded(double, digits.input_shape, "fewest").program, images, digits.contract)
    assert verification.measure("", exact, reference, 1e-12).passed
    single = predict(folded.program, images, digits.contract)
    assert (single.argmax(axis=1) == reference.argmax(axis=1)).all()


def test_every_proof_passes_for_the_whole_run(finished: Run) -> None:
    path = finished.workdir / "model.onnx"
    _, metadata = export.read_model_file(path)
    found = verify_file(
        path,
        metadata,
        network=finished.network(),
        folded=torch.export.load(finished.workdir / "folded.pt2"),
        dataset=finished.dataset,
        objective=finished.config.objective,
    )
    assert len(found.checks) == 11
    assert found.quality is not None
    assert np.sum(found.quality.confusion) == len(finished.dataset.test)
