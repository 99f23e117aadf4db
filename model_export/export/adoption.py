"""A classifier from another framework, wrapped so that the service can serve it.

::

    its input   float [N, C, H, W], [N, H, W, C] or [N, H · W · C]   ◀── uint8 images, normalised
    its output  logits ──▶ logits, softmax or sigmoid of them
                probabilities p ──▶ log p (or log p/(1 − p)), and p itself

The one output that is wanted is found, or named; maps from label to probability (as scikit-learn's
converter writes them) are replaced by the tensor that they were made from, and everything else goes.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

import numpy as np
import onnx
import onnx_ir as ir
from onnx import TensorProto, helper, version_converter
from onnx_ir.passes.common import NameFixPass, RemoveUnusedNodesPass

from model_export.errors import ModelError
from model_export.export.serving import (
    BATCH,
    Layout,
    constant,
    finish,
    put_pixels_in_front,
    put_probabilities_behind,
)
from service.artifact import LOGITS_NAME, PROBABILITIES_NAME, InputContract, Task

_FLOATS: Final = (ir.DataType.FLOAT, ir.DataType.DOUBLE, ir.DataType.FLOAT16)
_OLDEST_OPSET: Final = 13  # from here on the operators that are added mean what they mean today
_SMALLEST: Final = float(np.finfo(np.float32).tiny)  # log 0 is no number; this one's logarithm is −87
# Of p and of 1 − p, where they are of one label: next to 1 float32 has no smaller steps.
_FINEST: Final = 2.0**-24
_CHANNELS: Final = (1, 3)


@dataclass(frozen=True, slots=True)
class Foreign:
    """A classifier as it was found.

    Attributes:
        model: Its graph, with one input and one output: [N, K].
        layout: Of its input.
        shape: C, H, W; None where the file leaves it open.
        output: The name of its output in the file.
        labels: That the file itself names; None: it does not.
    """

    model: ir.Model
    layout: Layout
    shape: tuple[int, int, int] | None
    output: str
    labels: tuple[str, ...] | None


def read_foreign(
    path: Path, *, shape: tuple[int, int, int] | None = None, output: str | None = None
) -> Foreign:
    """The classifier in an ONNX file.

    Args:
        path: The file.
        shape: C, H, W, where the file leaves them open.
        output: The name of the output to take; None: the only one that can be meant.

    Raises:
        ModelError: No ONNX file, more than one input, no output that can be meant, or a shape that
            cannot be found out or contradicts ``shape``.
    """
    proto = _load(path)
    taken, labels = _take_output(path, proto.graph, output)
    model: ir.Model = ir.from_proto(proto)
    model.metadata_props.clear()
    model.opset_imports.setdefault("", _OLDEST_OPSET)
    for value in list(model.graph.inputs):
        if value.is_initializer():  # as files before 2019 list them
            model.graph.inputs.remove(value)
    if len(model.graph.inputs) != 1:
        names = ", ".join(str(value.name) for value in model.graph.inputs)
        raise ModelError(f"{path}: {len(model.graph.inputs)} inputs ({names}); a classifier has one")
    layout, found = _layout(path, model.graph.inputs[0], shape)
    RemoveUnusedNodesPass()(model)
    _name_nodes(model.graph)
    return Foreign(model, layout, found, taken, labels)


def adopted_graph(
    foreign: Foreign,
    contract: InputContract,
    task: Task,
    classes: int,
    gives: Literal["logits", "probabilities"],
) -> ir.Model:
    """The served graph around a foreign classifier, whose model is modified.

    Args:
        foreign: As `read_foreign` found it.
        contract: Size, mean and std.
        task: What its probabilities mean.
        classes: K.
        gives: What its output is.
    """
    model = foreign.model
    _free_the_batch(model.graph)
    put_pixels_in_front(model.graph, contract, foreign.layout)
    _flatten_output(model.graph)
    _cast_output(model.graph)
    if gives == "logits":
        put_probabilities_behind(model.graph, task)
    else:
        _put_logits_behind(model.graph, task)
    finish(model, classes)
    NameFixPass()(model)  # of its values: the contract's names come first, one that it had within gives way
    return model


def _name_nodes(graph: ir.Graph) -> None:
    """Each node has a name, and none that is taken for one of the nodes that will be put around them."""
    for position, node in enumerate(graph):
        node.name = f"network/{node.name or f'{node.op_type}.{position}'}"


def _load(path: Path) -> onnx.ModelProto:
    try:
        proto = onnx.load(path)
        onnx.checker.check_model(proto)
        opsets = {each.domain: each.version for each in proto.opset_import}
        if 0 < opsets.get("", 0) < _OLDEST_OPSET:
            proto = version_converter.convert_version(proto, _OLDEST_OPSET)
    except FileNotFoundError:
        raise ModelError(f"{path}: no such file") from None
    except Exception as error:  # protobuf, the checker and the converter each raise their own
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(f"{path}: not an ONNX file that can be used: {reason}") from error
    return proto


def _layout(
    path: Path, value: ir.Value, wanted: tuple[int, int, int] | None
) -> tuple[Layout, tuple[int, int, int] | None]:
    """The input's layout, and C, H, W as far as they are known."""
    if value.dtype not in _FLOATS or value.shape is None or len(value.shape) not in (2, 4):
        raise ModelError(
            f"{path}: input {value.name} is {value.type} {value.shape}; what is needed is a float tensor "
            "[N, C, H, W], [N, H, W, C] or [N, H · W · C]"
        )
    sizes = tuple(size if isinstance(size, int) else None for size in tuple(value.shape)[1:])
    if len(sizes) == 1:
        return _flat(path, sizes[0], wanted)
    first, last = (sizes[0], sizes[1], sizes[2]), (sizes[2], sizes[0], sizes[1])
    fitting = [
        (layout, shape)
        for layout, shape in ((Layout.CHANNELS_FIRST, first), (Layout.CHANNELS_LAST, last))
        if shape[0] in _CHANNELS and _agree(shape, wanted)
    ]
    if not fitting:
        said = "" if wanted is None else f"; --input says {'x'.join(map(str, wanted))}"
        raise ModelError(
            f"{path}: input {value.name} has the shape {value.shape}, not [N, C, H, W] or [N, H, W, C] with "
            f"1 or 3 channels{said}"
        )
    layout, found = fitting[0]
    channels, height, width = wanted or found
    known = None if channels is None or height is None or width is None else (channels, height, width)
    return layout, known


def _flat(
    path: Path, size: int | None, wanted: tuple[int, int, int] | None
) -> tuple[Layout, tuple[int, int, int]]:
    if wanted is None:
        raise ModelError(f"{path}: its input is flat ({size} numbers a picture): say --input CxHxW")
    if size is not None and size != int(np.prod(wanted)):
        raise ModelError(
            f"{path}: its input has {size} numbers a picture, --input {'x'.join(map(str, wanted))} has "
            f"{int(np.prod(wanted))}"
        )
    return Layout.FLAT, wanted


def _agree(found: tuple[int | None, ...], wanted: tuple[int, int, int] | None) -> bool:
    return wanted is None or all(a is None or a == b for a, b in zip(found, wanted, strict=True))


def _take_output(path: Path, graph: onnx.GraphProto, name: str | None) -> tuple[str, tuple[str, ...] | None]:
    """Leaves the one output that is meant; its name in the file, and the labels that a map was made with."""
    makers = {output: node for node in graph.node for output in node.output}
    candidates = [value for value in graph.output if _can_be_the_answer(value, makers.get(value.name))]
    if name is not None:
        candidates = [value for value in candidates if value.name == name]
    if len(candidates) != 1:
        raise ModelError(f"{path}: {_not_one_answer(graph, candidates, name)}")
    (value,) = candidates
    maker = makers.get(value.name)
    del graph.output[:]
    if maker is None or maker.op_type != "ZipMap":
        graph.output.append(value)
        return value.name, None
    graph.output.append(helper.make_tensor_value_info(maker.input[0], TensorProto.FLOAT, [None, None]))
    graph.node.remove(maker)
    return value.name, _map_labels(maker)


def _not_one_answer(
    graph: onnx.GraphProto, candidates: Sequence[onnx.ValueInfoProto], name: str | None
) -> str:
    """Why there is no single output to take, and what to do about it."""
    names = ", ".join(value.name for value in graph.output)
    if candidates:
        return f"of its outputs ({names}), several can be the answer; name one with --output-name"
    if name is not None and name not in {value.name for value in graph.output}:
        return f"--output-name {name}: no such output; there are {names}"
    found = ", ".join(_outline(value) for value in graph.output)
    return f"none of its outputs can be the answer, a float tensor [N, K] or a map of probabilities: {found}"


def _outline(value: onnx.ValueInfoProto) -> str:
    """``logits float [N, 10]``."""
    if not value.type.HasField("tensor_type"):
        return f"{value.name} ({value.type.WhichOneof('value')})"
    tensor = value.type.tensor_type
    sizes = ", ".join(size.dim_param or str(size.dim_value or "?") for size in tensor.shape.dim)
    return f"{value.name} ({TensorProto.DataType.Name(tensor.elem_type).lower()} [{sizes}])"


def _can_be_the_answer(value: onnx.ValueInfoProto, maker: onnx.NodeProto | None) -> bool:
    """A float tensor [N, K] or [N, K, 1, 1], or one map a picture that was made from a tensor."""
    if not value.type.HasField("tensor_type"):
        return maker is not None and maker.op_type == "ZipMap"
    tensor = value.type.tensor_type
    sizes = tensor.shape.dim
    is_matrix = not tensor.HasField("shape") or len(sizes) == 2
    is_pooled = len(sizes) > 2 and all(size.dim_value == 1 for size in sizes[2:])
    return (is_matrix or is_pooled) and ir.DataType(tensor.elem_type) in _FLOATS


def _map_labels(node: onnx.NodeProto) -> tuple[str, ...] | None:
    for attribute in node.attribute:
        if attribute.name == "classlabels_strings":
            return tuple(each.decode() for each in attribute.strings)
        if attribute.name == "classlabels_int64s":
            return tuple(map(str, attribute.ints))
    return None


def _free_the_batch(graph: ir.Graph) -> None:
    """Values that were declared for one size of batch are not any more; the checker infers them anew."""
    for node in graph:
        for value in node.outputs:
            if value.shape is not None and not value.is_graph_output():
                value.shape = None
    (pixels,) = graph.inputs
    if pixels.shape is not None:
        pixels.shape = ir.Shape([BATCH, *tuple(pixels.shape)[1:]])


def _flatten_output(graph: ir.Graph) -> None:
    """[N, K, 1, 1], as a network that ends in a global pooling gives it, becomes [N, K]."""
    value = graph.outputs[0]
    if value.shape is None or len(value.shape) == 2:
        return
    flatten = ir.node("Flatten", [value], {"axis": 1}, name="adopt/flatten")
    flatten.outputs[0].type = value.type
    graph.append(flatten)
    graph.outputs[0] = flatten.outputs[0]


def _cast_output(graph: ir.Graph) -> None:
    value = graph.outputs[0]
    if value.dtype in (None, ir.DataType.FLOAT):
        return
    cast = ir.node("Cast", [value], {"to": ir.DataType.FLOAT}, name="adopt/cast")
    graph.append(cast)
    graph.outputs[0] = cast.outputs[0]


def _put_logits_behind(graph: ir.Graph, task: Task) -> None:
    probabilities = graph.outputs[0]
    probabilities.name = PROBABILITIES_NAME
    floor = _FINEST if task is Task.MULTILABEL else _SMALLEST
    smallest = constant(graph, "adopt.smallest", np.asarray(floor, dtype=np.float32))
    nodes = [ir.node("Max", [probabilities, smallest], name="adopt/positive")]
    nodes.append(ir.node("Log", nodes[-1].outputs, name="adopt/logarithm"))
    if task is Task.MULTILABEL:
        one = constant(graph, "adopt.one", np.asarray(1, dtype=np.float32))
        rest = ir.node("Sub", [one, probabilities], name="adopt/rest")
        positive = ir.node("Max", [rest.outputs[0], smallest], name="adopt/rest_positive")
        logarithm = ir.node("Log", positive.outputs, name="adopt/rest_logarithm")
        logit = ir.node("Sub", [nodes[-1].outputs[0], logarithm.outputs[0]], name="adopt/logit")
        nodes += [rest, positive, logarithm, logit]
    nodes[-1].outputs[0].name = LOGITS_NAME
    graph.extend(nodes)
    graph.outputs.clear()
    graph.outputs.extend([nodes[-1].outputs[0], probabilities])
