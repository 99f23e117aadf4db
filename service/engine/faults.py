"""Failures of the runtime that only a new process cures.

::

    CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; …
         └─ the context of this process is poisoned: every later call fails alike, in every session
    CUDA failure 2: out of memory ; …
         └─ this batch's own failure: the next one may fit

Source: CUDA Runtime API, cudaError_t, the kinds of which it says that "the process must be terminated and
relaunched", and those of a device that is gone. The runtime's way to write them is ONNX Runtime's
``cuda_call.cc``; TensorRT names the kind without its number.
"""

from __future__ import annotations

import re
from types import MappingProxyType
from typing import Final

from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

# cudaError_t and its text (`cudaGetErrorString`).
POISONING_CUDA_ERRORS: Final = MappingProxyType(
    {
        100: "no CUDA-capable device is detected",
        214: "uncorrectable ECC error encountered",
        220: "uncorrectable NVLink error detected during the execution",
        700: "an illegal memory access was encountered",
        702: "the launch timed out and was terminated",
        709: "context is destroyed",
        710: "device-side assert triggered",
        714: "hardware stack error",
        715: "an illegal instruction was encountered",
        716: "misaligned address",
        717: "operation not supported on global/shared address space",
        718: "invalid program counter",
        719: "unspecified launch failure",
        721: "tensor memory not completely freed",
        999: "unknown error",
    }
)
_POISONED = re.compile(
    r"\bCUDA failure (?:{numbers}):|\bCuda Runtime \((?:{texts})\)|\bCUDA error: (?:{texts})".format(
        numbers="|".join(map(str, POISONING_CUDA_ERRORS)),
        texts="|".join(map(re.escape, POISONING_CUDA_ERRORS.values())),
    ),
    re.IGNORECASE,
)


def needs_new_process(error: Exception) -> bool:
    """Whether every later batch of this process would fail as well."""
    return isinstance(error, ort_errors.DeviceReset) or _POISONED.search(str(error)) is not None
