"""The network as an ONNX graph, operator for operator as the program has it."""

from __future__ import annotations

import contextlib
import logging
import warnings
from collections.abc import Iterator

import onnx_ir as ir
import torch
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from torch.export import ExportedProgram
from torch.fx import Node

from model_export.errors import FoldRefused, ModelError
from service.artifact import LOGITS_NAME

OPSET = 20  # what torch's exporter is written for; every runtime since 2024 has it
NETWORK_INPUT = "pixels"  # normalised float32 [batch, C, H, W]; `served_graph` puts the uint8 input before it

_SCOPES = "pkg.torch.onnx.name_scopes"  # the exporter's note of the modules that an operator came from


def network_graph(program: ExportedProgram) -> ir.Model:
    """The ONNX form of ``program``: input `NETWORK_INPUT`, output ``logits``, nothing optimised.

    The exporter's own optimiser is off: it would fold Conv + BatchNorm by itself, and then a missing
    BatchNormalization node would prove nothing about our fold.

    Args:
        program: One float32 input [N, C, H, W] with a dynamic N, one output [N, K]. Not modified.

    Raises:
        FoldRefused: A BatchNorm in training mode or without running statistics is left.
        ModelError: It has other inputs or outputs, or an operator that ONNX cannot express.
    """
    refuse_batch_statistics(program)
    _check_signature(program)
    try:
        with _quiet_exporter():
            exported = torch.onnx.export(
                program,
                dynamo=True,
                external_data=False,
                optimize=False,
                opset_version=OPSET,
                input_names=[NETWORK_INPUT],
                output_names=[LOGITS_NAME],
                verbose=False,
            )
    except torch.onnx.errors.OnnxExporterError as error:
        reason = _first_line(_root(error))
        raise ModelError(f"the network cannot be written as ONNX: {reason}") from error
    if exported is None:
        raise ModelError("the network cannot be written as ONNX: the exporter returned nothing")
    model = exported.model
    _name_nodes_after_modules(model.graph)
    # The exporter's notes hold stack traces with this machine's paths.
    ClearMetadataAndDocStringPass()(model)
    return model


def refuse_batch_statistics(program: ExportedProgram) -> None:
    """Refuses a normalisation that would look at the batch.

    The ONNX exporter writes a training-mode BatchNorm as an inference one without a warning, so an
    instance's answer would silently become another one. It has to be caught in torch.

    Raises:
        FoldRefused: Names the first such module and why.
    """
    for node in program.graph.nodes:
        reason = _batch_statistics(node)
        if reason is not None:
            raise FoldRefused(_module_path(node), reason)


def _batch_statistics(node: Node) -> str | None:
    """Why ``node`` is a normalisation by the batch's own statistics, else None.

    Schema: ``batch_norm(input, weight, bias, running_mean, running_var, training, …)``; the
    decomposed forms have the same names and leave out what they do not need.
    """
    if not isinstance(node.target, torch._ops.OpOverload) or "batch_norm" not in str(node.target):
        return None
    parameters = [argument.name for argument in node.target._schema.arguments]
    arguments = dict(zip(parameters, node.args, strict=False)) | dict(node.kwargs)
    if arguments.get("running_mean") is None:
        return "it has no running statistics and normalises by the batch's own; train it with them"
    if arguments.get("training", "with_update" in str(node.target)):
        return "in training mode it normalises by the batch's own statistics; call `model.eval()` first"
    return None


def _module_path(node: Node) -> str:
    stack = node.meta.get("nn_module_stack") or {}
    paths = [path for path, _ in stack.values() if path]
    return str(paths[-1]) if paths else node.name


def _check_signature(program: ExportedProgram) -> None:
    signature = program.graph_signature
    if len(signature.user_inputs) != 1 or len(signature.user_outputs) != 1:
        raise ModelError(
            f"the network has {len(signature.user_inputs)} input(s) and {len(signature.user_outputs)} "
            "output(s); a classifier takes one batch of pictures and returns one batch of logits"
        )


def _name_nodes_after_modules(graph: ir.Graph) -> None:
    """``features.0/conv2d`` in the place of ``node_conv2d``: a profile then speaks of layers."""
    taken: set[str] = set()
    for node in graph:
        scopes = node.metadata_props.get(_SCOPES, "")
        # "['', 'features', 'features.0', 'conv2d']": the last two are the module and the operator
        parts = [part.strip(" '\"") for part in scopes.strip("[]").split(",")]
        name = "/".join(part for part in parts[-2:] if part) or str(node.name)
        node.name = name if name not in taken else f"{name}.{node.name}"
        taken.add(node.name)


@contextlib.contextmanager
def _quiet_exporter() -> Iterator[None]:
    """Silences the exporter's remarks about packages and its own deprecations; errors still raise."""
    logger = logging.getLogger("torch.onnx")
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)


def _root(error: BaseException) -> BaseException:
    """What began it: the exporter wraps that into advice about itself."""
    return error if error.__cause__ is None else _root(error.__cause__)


def _first_line(error: BaseException) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
