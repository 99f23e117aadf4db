"""From a program to one self-describing model file.

::

    program   float32 [N, C, H, W], normalised ──▶ logits
       │ network_graph      torch → ONNX; refuses a BatchNorm that is no constant map
       │ lower              what is left of BatchNorms → the operator that ONNX Runtime runs fastest
       │ served_graph       uint8 [N, H, W, C] in front, logits and probabilities behind
       │ self_test          real pictures, encoded, and the logits that this very graph gives
       ▼ write_model_file   metadata, checker, checksum
    model.onnx, model.onnx.sha256

An ONNX classifier from elsewhere goes `read_foreign` → `adopted_graph` → the rest of that road.
"""

from model_export.export.adoption import Foreign, adopted_graph, read_foreign
from model_export.export.lowering import lower
from model_export.export.model_file import producer, read_model_file, write_model_file
from model_export.export.network import network_graph
from model_export.export.reference import reference_distributions
from model_export.export.selftest import make_self_test, self_test_images
from model_export.export.serving import Layout, served_graph

__all__ = [
    "Foreign",
    "Layout",
    "adopted_graph",
    "lower",
    "make_self_test",
    "network_graph",
    "producer",
    "read_foreign",
    "read_model_file",
    "reference_distributions",
    "self_test_images",
    "served_graph",
    "write_model_file",
]
