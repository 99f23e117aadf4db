"""Smaller numbers where they do no harm: int8 for CPUs with fast integer products, fp16 for GPUs.

::

    model.onnx ── calibrate (int8: ranges of every value, on training pictures)
       ├─ int8     weights int8, one scale a channel; activations uint8, one scale a value
       └─ fp16     every value inside; input and outputs stay what they are
            ├─ accuracy drops too far? measure what each layer does alone, keep the worst in float
            └─ still too far: refused, and the layers that hurt are named
"""

from model_export.quantization.fp16 import to_fp16
from model_export.quantization.int8 import (
    Int8Plan,
    calibrated_ranges,
    fold_in_runtime,
    layer_names,
    products_saturate,
    require_quantizable,
    to_int8,
)
from model_export.quantization.search import quantize_fp16, quantize_int8

__all__ = [
    "Int8Plan",
    "calibrated_ranges",
    "fold_in_runtime",
    "layer_names",
    "products_saturate",
    "quantize_fp16",
    "quantize_int8",
    "require_quantizable",
    "to_fp16",
    "to_int8",
]
