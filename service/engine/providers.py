"""Execution providers: which one a session gets, and why not the one that was asked for.

::

    cpu                 the CPU
    cuda, tensorrt      that one, or `ProviderUnavailable` saying what is missing; never a fallback
    auto                CUDA where it works, else the CPU; warns when there is a driver but CUDA does not work

``auto`` does not take TensorRT: building its engines takes minutes at the first start.

onnxruntime-gpu lists CUDA as available on every machine and answers a session that asks for it with
the CPU, in silence. So the libraries are tried first, one by one, for the name of what is missing.
"""

from __future__ import annotations

import contextlib
import ctypes
import io
from enum import StrEnum
from pathlib import Path
from typing import Final, Literal, TypeAlias

import onnxruntime

from service.hardware import DRIVER, has_driver, load_fault

Kind: TypeAlias = Literal["cpu", "cuda", "tensorrt"]
ProviderOptions: TypeAlias = dict[str, str]


class Provider(StrEnum):
    """What an operator asks for."""

    AUTO = "auto"
    CPU = "cpu"
    CUDA = "cuda"
    TENSORRT = "tensorrt"

    @property
    def kind(self) -> Kind:
        """What this machine gives for it, as far as can be seen before a session is built."""
        if self is Provider.AUTO:
            return "cuda" if has_driver() and missing_part("cuda") is None else "cpu"
        return _KINDS[self]


_KINDS: Final[dict[Provider, Kind]] = {
    Provider.CPU: "cpu",
    Provider.CUDA: "cuda",
    Provider.TENSORRT: "tensorrt",
}

NAMES: Final[dict[Kind, str]] = {
    "cpu": "CPUExecutionProvider",
    "cuda": "CUDAExecutionProvider",
    "tensorrt": "TensorrtExecutionProvider",
}

# TF32 rounds float32 products to 10 bits; the self-test's tolerance is for float32.
_CUDA_OPTIONS: Final = {"use_tf32": "0", "cudnn_conv_algo_search": "HEURISTIC"}


def chain(
    kind: Kind, *, cuda_graphs: bool = False, tensorrt_cache: Path | None = None
) -> list[tuple[str, ProviderOptions]]:
    """The provider of this kind and those below it that take the operators it cannot run.

    Args:
        kind: Of the first one.
        cuda_graphs: Whether a batch size's work is recorded once and then replayed as a whole.
        tensorrt_cache: Where TensorRT keeps its engines for the next start; None: nowhere.
    """
    cpu: tuple[str, ProviderOptions] = (NAMES["cpu"], {})
    if kind == "cpu":
        return [cpu]
    cuda = dict(_CUDA_OPTIONS)
    if kind == "cuda":
        return [(NAMES["cuda"], cuda | ({"enable_cuda_graph": "1"} if cuda_graphs else {})), cpu]
    tensorrt = {"trt_cuda_graph_enable": "1"} if cuda_graphs else {}
    if tensorrt_cache is not None:
        tensorrt |= _kept_in(str(tensorrt_cache))
    return [(NAMES["tensorrt"], tensorrt), (NAMES["cuda"], cuda), cpu]


def _kept_in(folder: str) -> ProviderOptions:
    return {
        "trt_engine_cache_enable": "1",
        "trt_engine_cache_path": folder,
        "trt_timing_cache_enable": "1",
        "trt_timing_cache_path": folder,
    }


def missing_part(kind: Kind) -> str | None:
    """What this machine lacks for a provider, in one sentence; None: nothing that can be seen yet."""
    if kind == "cpu":
        return None
    if NAMES[kind] not in onnxruntime.get_available_providers():
        return f"this onnxruntime was built without {NAMES[kind]}; install onnxruntime-gpu"
    driver_fault = load_fault(DRIVER)
    if driver_fault is not None:
        return f"no NVIDIA driver ({driver_fault})"
    return _library_fault(kind)


def _library_fault(kind: Kind) -> str | None:
    """Why onnxruntime's library for this provider cannot be loaded."""
    with contextlib.redirect_stdout(io.StringIO()):  # it prints what it does not find
        onnxruntime.preload_dlls()
    folder = Path(onnxruntime.__file__).parent / "capi"
    for library, mode in (
        ("libonnxruntime_providers_shared.so", ctypes.RTLD_GLOBAL),
        (f"libonnxruntime_providers_{kind}.so", ctypes.DEFAULT_MODE),
    ):
        fault = load_fault(str(folder / library), mode)
        if fault is not None:
            return f"{library} cannot be loaded: {fault}; install onnxruntime-gpu[cuda,cudnn]"
    return None
