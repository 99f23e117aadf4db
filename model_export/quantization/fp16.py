"""Half precision, for GPUs. On a CPU it is slower than float32."""

from __future__ import annotations

import warnings
from pathlib import Path

import onnx
import onnx_ir as ir
from onnxconverter_common import float16

from model_export.quantization.int8 import OWN_NODES


def to_fp16(model_file: Path) -> ir.Model:
    """The graph of ``model_file`` in float16 inside; input and outputs keep their types.

    Numbers too small for float16 become its smallest, not zero; the gates judge whether that matters.

    Args:
        model_file: The float file. Its metadata is not taken over.
    """
    model = onnx.load(model_file)
    del model.metadata_props[:]
    # The converter gives the wrong types to what is behind an output, so the last node waits outside.
    last, probabilities = model.graph.node.pop(), model.graph.output.pop()
    own = [node.name for node in model.graph.node if node.name.startswith(OWN_NODES)]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # one line for each number that is rounded to float16's range
        converted = float16.convert_float_to_float16(model, keep_io_types=True, node_block_list=own)
    converted.graph.node.append(last)
    converted.graph.output.append(probabilities)
    graph: ir.Model = ir.from_proto(converted)
    return graph
