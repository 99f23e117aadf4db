"""Tiny model files for tests: a linear classifier in ONNX, whole and self-tested, or broken on purpose.

::

    logits = pixels / 255 · W + b        pixels uint8 [N, H, W, C] flattened, W random but seeded
    probabilities = softmax(logits)
"""

from __future__ import annotations

import base64
import hashlib
import io
import json
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Literal

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper
from PIL import Image

from service.artifact import (
    METADATA_KEY,
    ColourOrder,
    InputContract,
    ModelMetadata,
    Precision,
    Producer,
    ReferenceDistributions,
    SelfTest,
    SelfTestInstance,
    Task,
    format_sidecar,
    sidecar_path,
)

Fault = Literal[
    "truncated",
    "not_onnx",
    "empty",
    "wrong_checksum",
    "malformed_sidecar",
    "no_sidecar",
    "no_metadata",
    "broken_metadata",
    "other_schema",
    "other_input_shape",
    "other_input_type",
    "other_input_name",
    "fixed_batch",
    "other_output_name",
    "missing_label",
    "other_precision",
    "wrong_logits",
    "wrong_top1",
    "nan_logits",
    "wrong_probabilities",
    "undecodable_selftest",
    "no_tolerance",
    "unknown_operator",
    "outside_weights",
    "weights_beside",
    "too_large",
]
OPSET: Final = 20
# Of the ONNX format; ONNX Runtime 1.31 reads up to 13.
IR_VERSION: Final = 10


@dataclass(frozen=True)
class TinyModel:
    """The classifier's numbers.

    Attributes:
        shape: (H, W, C) of one instance.
        weights: float32 [H · W · C, K].
        bias: float32 [K].
    """

    shape: tuple[int, int, int]
    weights: NDArray[np.float32]
    bias: NDArray[np.float32]

    @classmethod
    def make(cls, shape: tuple[int, int, int] = (8, 8, 1), classes: int = 3, seed: int = 0) -> TinyModel:
        """A seeded one."""
        generator = np.random.default_rng(seed)
        weights = generator.normal(size=(int(np.prod(shape)), classes)).astype(np.float32)
        return cls(shape, weights, generator.normal(size=classes).astype(np.float32))

    def logits(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """float32 [N, K] of uint8 [N, H, W, C]."""
        scaled = pixels.reshape(len(pixels), -1).astype(np.float32) / np.float32(255)
        return np.asarray(scaled @ self.weights + self.bias, np.float32)

    def image(self, seed: int) -> NDArray[np.uint8]:
        """A seeded instance, uint8 [H, W, C]."""
        return np.random.default_rng(seed).integers(0, 256, self.shape, dtype=np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    """uint8 [H, W, C] as a PNG file."""
    buffer = io.BytesIO()
    Image.fromarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels).save(buffer, "png")
    return buffer.getvalue()


def write_model(
    root: Path,
    *,
    name: str = "tiny",
    version: str = "1",
    precision: Precision = Precision.FP32,
    model: TinyModel | None = None,
    labels: tuple[str, ...] = ("cat", "dog", "bird"),
    task: Task = Task.MULTICLASS,
    reference: ReferenceDistributions | None = None,
    fault: Fault | None = None,
) -> Path:
    """Put a version into a repository; its model file.

    Args:
        root: The repository.
        name: Of the model.
        version: Of it.
        precision: What the file's name and metadata say (the weights are float32 all the same).
        model: The numbers; as many classes as labels.
        labels: Label names.
        task: Decides softmax or sigmoid.
        reference: What training saw.
        fault: What is wrong with it; None: nothing.
    """
    model = model or TinyModel.make(classes=len(labels))
    folder = root / name / version
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / precision.file_name
    proto = _graph(model, task, fault)
    if fault in _ELSEWHERE:
        (folder / _ELSEWHERE[fault]).write_bytes(model.weights.tobytes())
    metadata = _metadata(model, name, version, precision, labels, task)
    helper.set_model_props(proto, _props(metadata.model_copy(update={"reference": reference}), fault))
    _write(path, proto.SerializeToString(), fault)
    return path


def _write(path: Path, content: bytes, fault: Fault | None) -> None:
    if fault == "not_onnx":
        content = b"not a model" * 100
    kept = {"truncated": len(content) // 2, "empty": 0}.get(fault or "", len(content))
    path.write_bytes(content[:kept])
    if fault in ("no_sidecar", "truncated", "empty"):
        sidecar_path(path).unlink(missing_ok=True)
        return
    digest = hashlib.sha256(content + (b"!" if fault == "wrong_checksum" else b"")).hexdigest()
    text = "what?\n" if fault == "malformed_sidecar" else format_sidecar(digest, path)
    sidecar_path(path).write_text(text)


def _metadata(
    model: TinyModel,
    name: str,
    version: str,
    precision: Precision,
    labels: tuple[str, ...],
    task: Task,
) -> ModelMetadata:
    height, width, channels = model.shape
    images = [model.image(seed) for seed in range(3)]
    instances = tuple(
        SelfTestInstance(
            media_type="image/png",
            image=base64.b64encode(png(image)),
            logits=tuple(model.logits(image[np.newaxis])[0].tolist()),
        )
        for image in images
    )
    return ModelMetadata(
        name=name,
        version=version,
        created_at=datetime(2026, 1, 1, tzinfo=UTC),
        task=task,
        labels=labels,
        input=InputContract(
            height=height,
            width=width,
            channels=1 if channels == 1 else 3,
            colour_order=ColourOrder.GRAY if channels == 1 else ColourOrder.RGB,
            fill=(0,) * channels,
            mean=(0.0,) * channels,
            std=(1.0,) * channels,
        ),
        precision=precision,
        architecture="tiny",
        fold=None,
        producer=Producer(foldserve="0", git_commit=None, torch=None, onnx=onnx.__version__, opset=OPSET),
        selftest=SelfTest(tolerance={"cpu": 1e-4, "cuda": 1e-3, "tensorrt": 1e-2}, instances=instances),
    )


def _props(metadata: ModelMetadata, fault: Fault | None) -> dict[str, str]:
    if fault == "no_metadata":
        return {}
    if fault == "broken_metadata":
        return {METADATA_KEY: "{"}
    document = metadata.model_dump(mode="json")
    if fault in _METADATA_FAULTS:
        _METADATA_FAULTS[fault](document)
    return {METADATA_KEY: json.dumps(document)}


def _other_input_shape(document: dict[str, Any]) -> None:
    document["input"]["height"] += 1


def _missing_label(document: dict[str, Any]) -> None:
    document["labels"].pop()
    for instance in document["selftest"]["instances"]:
        instance["logits"].pop()


def _wrong_logits(document: dict[str, Any]) -> None:
    document["selftest"]["instances"][1]["logits"][0] += 0.01


def _wrong_top1(document: dict[str, Any]) -> None:
    """Within the tolerance, but two labels change places."""
    document["selftest"]["tolerance"]["cpu"] = 0.5
    logits = document["selftest"]["instances"][0]["logits"]
    ranked = sorted(range(len(logits)), key=logits.__getitem__)
    best, second = ranked[-1], ranked[-2]
    logits[second] = logits[best] + 1e-6 * abs(logits[best])


_METADATA_FAULTS: dict[Fault, Callable[[dict[str, Any]], None]] = {
    "other_schema": lambda document: document.update(schema_version=2),
    "other_input_shape": _other_input_shape,
    "missing_label": _missing_label,
    "other_precision": lambda document: document.update(precision="int8"),
    "wrong_logits": _wrong_logits,
    "wrong_top1": _wrong_top1,
    "undecodable_selftest": lambda document: document["selftest"]["instances"][0].update(image="AAAA"),
    "no_tolerance": lambda document: document["selftest"].update(tolerance={"cuda": 1e-3}),
}


def _graph(model: TinyModel, task: Task, fault: Fault | None) -> onnx.ModelProto:
    """images → Cast → Mul 1/255 → Flatten → MatMul → Add → logits → Softmax or Sigmoid → probabilities."""
    batch: str | int = 2 if fault == "fixed_batch" else "batch"
    kind = TensorProto.FLOAT if fault == "other_input_type" else TensorProto.UINT8
    source = "pixels" if fault == "other_input_name" else "images"
    scores = "scores" if fault == "other_output_name" else "logits"
    squash = "Softmax" if task is Task.MULTICLASS else "Sigmoid"
    bias = np.full_like(model.bias, np.nan) if fault == "nan_logits" else model.bias
    nodes = [
        helper.make_node("Cast", [source], ["cast"], to=TensorProto.FLOAT),
        helper.make_node("Mul", ["cast", "scale"], ["scaled"]),
        helper.make_node("Flatten", ["scaled"], ["flat"], axis=1),
        helper.make_node("MatMul", ["flat", "weights"], ["product"]),
        helper.make_node("Add", ["product", "bias"], [scores]),
        helper.make_node("Tanh" if fault == "wrong_probabilities" else squash, [scores], ["probabilities"]),
    ]
    if fault == "unknown_operator":
        nodes[-1].op_type = "Divination"
    if fault == "too_large":
        nodes[4:5] = _hungry(nodes[4])
    constants: dict[str, NDArray[np.float32]] = {
        "scale": np.array(1 / 255, np.float32),
        "weights": model.weights,
        "bias": bias,
    }
    tensors = [numpy_helper.from_array(value, constant) for constant, value in constants.items()]
    if fault in _ELSEWHERE:
        _move_out(tensors[1], _ELSEWHERE[fault])
    outputs = [(name, TensorProto.FLOAT, [batch, len(model.bias)]) for name in (scores, "probabilities")]
    graph = helper.make_graph(
        nodes,
        "tiny",
        [helper.make_tensor_value_info(source, kind, [batch, *model.shape])],
        [helper.make_tensor_value_info(*output) for output in outputs],
        tensors,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", OPSET)], ir_version=IR_VERSION)


def _hungry(node: onnx.NodeProto) -> list[onnx.NodeProto]:
    """The node, and before it one that needs more memory than any machine has: 2⁵⁰ bytes."""
    size = numpy_helper.from_array(np.array([1 << 48], np.int64))
    first, second = node.input
    return [
        helper.make_node("Constant", [], ["size"], value=size),
        helper.make_node("ConstantOfShape", ["size"], ["zeros"]),
        helper.make_node("ReduceMax", ["zeros"], ["zero"], keepdims=0),
        helper.make_node("Add", [first, "zero"], ["same"]),
        helper.make_node("Add", ["same", second], list(node.output)),
    ]


# Where the weights are then, from the version's folder.
_ELSEWHERE: dict[Fault, str] = {"outside_weights": "../../secret.bin", "weights_beside": "weights.bin"}


def _move_out(tensor: TensorProto, location: str) -> None:
    """The numbers are read from another file."""
    tensor.ClearField("raw_data")
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value=location)
