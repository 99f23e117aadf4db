"""The ONNX side counts as the torch side does."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from benchmarks.folding import onnx_counting
from tests.folding.collection import COLLECTION
from tests.folding.collection.counting import census
from tests.folding.collection.judging import exported, quiet

# One of each kind: BatchNorm, arithmetic, a chain, all together, none.
SAME_ON_BOTH_SIDES = [
    "conv2d",
    "frozen_batch_norm",
    "input_normalisation",
    "article_mixed",
    "dense_block_of_input",
    "group_norm",
]


def feeds_of(model: onnx.ModelProto, inputs: tuple[torch.Tensor, ...]) -> onnx_counting.Feeds:
    return {value.name: x.numpy() for value, x in zip(model.graph.input, inputs, strict=True)}


@pytest.mark.parametrize("name", SAME_ON_BOTH_SIDES)
def test_both_sides_count_alike(name: str) -> None:
    sample = COLLECTION[name].build(torch.float32)
    program = exported(*sample)
    with quiet():
        model = onnx.load_from_string(_serialised(program))
    assert onnx_counting.count(model, feeds_of(model, sample.inputs)) == census(program).affine_maps


def _serialised(program: torch.export.ExportedProgram) -> bytes:
    converted = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False)
    assert converted is not None
    return bytes(converted.model_proto.SerializeToString())


def graph(*steps: tuple[str, np.ndarray]) -> onnx.ModelProto:
    """A chain of binary operators with constants, from an image [1, 4, 3, 3]."""
    nodes, constants, value = [], [], "x"
    for i, (operator, constant) in enumerate(steps):
        constants.append(numpy_helper.from_array(constant.astype(np.float32), f"c{i}"))
        nodes.append(helper.make_node(operator, [value, f"c{i}"], [f"y{i}"]))
        value = f"y{i}"
    shape = [1, 4, 3, 3]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)
    y = helper.make_tensor_value_info(value, TensorProto.FLOAT, shape)
    opset = [helper.make_opsetid("", 20)]
    return helper.make_model(
        helper.make_graph(nodes, "chain", [x], [y], constants), opset_imports=opset, ir_version=10
    )


CHANNELS = np.arange(1.0, 5.0).reshape(1, 4, 1, 1)
IMAGE = np.arange(36.0).reshape(1, 4, 3, 3)


@pytest.mark.parametrize(
    ("steps", "expected"),
    [
        ([("Mul", CHANNELS)], 1),
        ([("Mul", CHANNELS), ("Add", CHANNELS)], 1),
        ([("Sub", CHANNELS), ("Div", CHANNELS)], 1),
        ([("Add", IMAGE)], 0),
        ([("Add", np.broadcast_to(CHANNELS, IMAGE.shape))], 1),
        ([("Mul", -np.ones((1, 4, 1, 1)))], 0),
        ([("Max", CHANNELS)], 0),
        ([("Mul", CHANNELS), ("Max", CHANNELS), ("Add", CHANNELS)], 2),
    ],
)
def test_arithmetic_is_counted_on_its_values(steps: list[tuple[str, np.ndarray]], expected: int) -> None:
    feeds: onnx_counting.Feeds = {"x": np.ones((1, 4, 3, 3), np.float32)}
    assert onnx_counting.count(graph(*steps), feeds) == expected
