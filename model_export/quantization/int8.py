"""From a float file to an int8 graph, layer by layer as asked."""

from __future__ import annotations

import logging
import tempfile
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import onnx_ir as ir
import onnxruntime as ort
from numpy.typing import NDArray
from onnx import TensorProto, helper
from onnxruntime.quantization import (
    CalibrationDataReader,
    CalibrationMethod,
    QDQQuantizer,
    QuantType,
    create_calibrator,
)

from model_export.errors import InvalidConfig
from service.artifact import INPUT_NAME

# Operators with weights: what quantization is for. Everything between two of them goes along.
WEIGHTED: Final = ("Conv", "ConvTranspose", "Gemm", "MatMul")
_COMPANIONS: Final = (
    *("Add", "AveragePool", "Clip", "Concat", "Flatten", "GlobalAveragePool", "MaxPool", "Mul", "Pad"),
    *("Relu", "Reshape", "Resize", "Squeeze", "Transpose", "Unsqueeze"),
)
OWN_NODES: Final = ("normalise/", "probabilities", "adopt/")  # the served graph's own nodes stay in float
_QUANTIZED: Final = ("DequantizeLinear", "QLinearConv", "QLinearMatMul", "ConvInteger", "MatMulInteger")
_CALIBRATION_BATCH: Final = 16

# Ranges of all values, as the calibrator makes them; opaque.
Ranges = Any


@dataclass(frozen=True, slots=True)
class Int8Plan:
    """How to quantize.

    Attributes:
        kept: Names of the weighted nodes that stay in float.
        is_reduced: Weights use 7 of their 8 bits, for CPUs whose integer products saturate.
    """

    kept: frozenset[str] = frozenset()
    is_reduced: bool = False


def layer_names(model_file: Path) -> tuple[str, ...]:
    """The nodes with weights, in the order of the graph."""
    graph = ir.load(model_file).graph
    return tuple(str(node.name) for node in graph if node.op_type in WEIGHTED)


def fold_in_runtime(model_file: Path, target: Path) -> Path:
    """Writes the graph with its BatchNorms and constants folded by ONNX Runtime: ``target``.

    For files from elsewhere, whose BatchNorms nobody has folded: between a convolution and its activation
    each would cost two more roundings.

    Args:
        model_file: The float file. Its metadata is not taken over.
        target: The file to write.
    """
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(target)
    ort.InferenceSession(str(model_file), options, providers=["CPUExecutionProvider"])
    return target


def require_quantizable(model_file: Path, precision: str) -> None:
    """Checks that there is something in ``model_file`` that ``precision`` could make smaller.

    Raises:
        InvalidConfig: It has no float32 weights, or is quantized already; the message says which.
    """
    graph = ir.load(model_file).graph
    if any(node.op_type in _QUANTIZED for node in graph):
        raise InvalidConfig(f"--precisions {precision}: {model_file.name} is quantized already")
    weights = [weight for node in graph if node.op_type in WEIGHTED for weight in node.inputs[1:2]]
    kinds = {weight.dtype for weight in weights if weight is not None and weight.is_initializer()}
    if ir.DataType.FLOAT not in kinds:
        found = ", ".join(sorted({node.op_type for node in graph if not _is_own(node)}))
        raise InvalidConfig(
            f"--precisions {precision}: {model_file.name} has no convolution or matrix product with float32 "
            f"weights that could be made smaller, only {found}"
        )


def _is_own(node: ir.Node) -> bool:
    return str(node.name).startswith(OWN_NODES)


def calibrated_ranges(model_file: Path, images: NDArray[np.uint8]) -> Ranges:
    """The smallest and largest value that each tensor takes.

    MinMax, Entropy and Percentile came out alike on the networks that were tried; MinMax clips nothing.

    Args:
        model_file: The float file.
        images: uint8 [N, H, W, C], from the training split.
    """
    with _quiet(), tempfile.TemporaryDirectory() as folder:
        calibrator = create_calibrator(
            model_file,
            [*WEIGHTED, *_COMPANIONS],
            augmented_model_path=str(Path(folder) / "augmented.onnx"),
            calibrate_method=CalibrationMethod.MinMax,
        )
        calibrator.collect_data(_Batches(images))
        return calibrator.compute_data()


def to_int8(model_file: Path, ranges: Ranges, plan: Int8Plan) -> ir.Model:
    """The graph of ``model_file`` with quantized layers, as QuantizeLinear/DequantizeLinear pairs.

    Args:
        model_file: The float file. Its metadata is not taken over.
        ranges: As `calibrated_ranges` found them.
        plan: Which layers, and how.
    """
    model = onnx.load(model_file)
    del model.metadata_props[:]
    own = [node.name for node in model.graph.node if node.name.startswith(OWN_NODES)]
    with _quiet():
        quantizer = QDQQuantizer(
            model,
            per_channel=True,
            reduce_range=plan.is_reduced,
            weight_qType=QuantType.QInt8,
            # Not QInt8: the CPU's fast products are uint8 × int8, and the other form is slower than float.
            activation_qType=QuantType.QUInt8,
            tensors_range=ranges,
            nodes_to_quantize=[],
            nodes_to_exclude=[*own, *plan.kept],
            op_types_to_quantize=[*WEIGHTED, *_COMPANIONS],
            extra_options={"ForceQuantizeNoInputCheck": False},
        )
        quantizer.quantize_model()
    graph: ir.Model = ir.from_proto(quantizer.model.model)
    graph.graph.sort()  # the quantizer appends its nodes at the end
    return graph


def products_saturate() -> bool:
    """Whether this CPU's uint8 × int8 products clip at 16 bits (without VNNI they do).

    One product that needs more than 16 bits tells: 255 · 127 · 2 > 32,767.
    """
    size = 64
    node = helper.make_node("MatMulInteger", ["a", "b"], ["y"])
    graph = helper.make_graph(
        [node],
        "saturation",
        [
            helper.make_tensor_value_info("a", TensorProto.UINT8, [1, size]),
            helper.make_tensor_value_info("b", TensorProto.INT8, [size, size]),
        ],
        [helper.make_tensor_value_info("y", TensorProto.INT32, [1, size])],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = ort.InferenceSession(model.SerializeToString(), providers=["CPUExecutionProvider"])
    highest = {"a": np.full((1, size), 255, np.uint8), "b": np.full((size, size), 127, np.int8)}
    (product,) = session.run(None, highest)
    return bool((product != size * 255 * 127).any())


class _Batches(CalibrationDataReader):  # type: ignore[misc]  # onnxruntime carries no types
    """Pictures, a few at a time."""

    def __init__(self, images: NDArray[np.uint8]) -> None:
        self._batches: Iterator[NDArray[np.uint8]] = (
            images[start : start + _CALIBRATION_BATCH] for start in range(0, len(images), _CALIBRATION_BATCH)
        )

    def get_next(self) -> dict[str, NDArray[np.uint8]] | None:
        """The next feed; None at the end."""
        batch = next(self._batches, None)
        return None if batch is None else {INPUT_NAME: batch}


@contextmanager
def _quiet() -> Iterator[None]:
    """Silences the quantizer's advice, which is for other graphs than ours; errors still raise."""
    logger = logging.getLogger()
    level = logger.level
    logger.setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(level)
