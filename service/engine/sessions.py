"""Building sessions: provider, threads, and whose fault it is when there is none."""

from __future__ import annotations

import logging
import os
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from service.engine.binding import leave_uncaptured
from service.engine.providers import NAMES, Kind, Provider, chain, missing_part
from service.errors import ContractMismatch, InvalidFile, LoadFailed, ModelRejected, ProviderUnavailable
from service.hardware import has_driver

logger = logging.getLogger(__name__)

# Where weights outside the model file are looked for. A version is one file: below a device nothing lies.
_WEIGHTS_BESIDE: Final = "session.model_external_initializers_file_folder_path"


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How sessions are built.

    Attributes:
        provider: The execution provider asked for.
        threads: Cores that inference uses; None: ``cpus``, or one where the model is so small that more
            would only get in the way.
        cpus: The process's share of the machine; None: all that it may use.
        max_batch_size: Largest batch that will be run.
        allow_spinning: Whether the session's threads wait for work by spinning: a little faster for a lone
            client, but the cores it takes are those that decode the next images.
        cuda_graphs, tensorrt_cache: As of `service.engine.providers.chain`.
    """

    provider: Provider = Provider.AUTO
    threads: int | None = None
    cpus: int | None = None
    max_batch_size: int = 64
    allow_spinning: bool = False
    cuda_graphs: bool = False
    tensorrt_cache: Path | None = None

    @property
    def has_one_thread(self) -> bool:
        """Whether inference has one thread, whatever the model."""
        return (self.threads or self.cpus) == 1

    @property
    def buckets(self) -> tuple[int, ...]:
        """The batch sizes that are warmed: powers of two up to ``max_batch_size``, and that itself."""
        powers = (1 << power for power in range(self.max_batch_size.bit_length()))
        return tuple(sorted({*powers, self.max_batch_size}))


@dataclass(frozen=True, slots=True)
class OpenSession:
    """A session.

    Attributes:
        kind: The kind of provider it runs on.
        threads: Of one inference.
        is_fallback: Whether that is the CPU because the GPU that is there could not be used.
    """

    runtime: onnxruntime.InferenceSession
    kind: Kind
    threads: int
    is_fallback: bool = False


def open_session(path: Path, options: EngineOptions, threads: int) -> OpenSession:
    """A session on the provider asked for.

    Raises:
        InvalidFile: No ONNX file.
        ContractMismatch: Its weights are not inside.
        LoadFailed: The runtime cannot build a session from it.
        ProviderUnavailable: ``cuda`` or ``tensorrt`` was asked for and is not to be had.
    """
    if options.provider is Provider.AUTO:
        return _open_best(path, options, threads)
    kind = options.provider.kind
    fault = missing_part(kind)
    if fault is not None:
        raise ProviderUnavailable(f"execution provider {kind} was asked for, but {fault}")
    return _build(path, kind, options, threads)


def _open_best(path: Path, options: EngineOptions, threads: int) -> OpenSession:
    """CUDA where it works; else the CPU, with a warning where it should have worked."""
    if has_driver():
        fault = missing_part("cuda")
        if fault is None:
            try:
                return _build(path, "cuda", options, threads)
            except ProviderUnavailable as error:
                fault = str(error)
        logger.warning("an NVIDIA driver is present, but inference runs on the CPU: %s", fault)
        return replace(_build(path, "cpu", options, threads), is_fallback=True)
    return _build(path, "cpu", options, threads)


def _build(path: Path, kind: Kind, options: EngineOptions, threads: int) -> OpenSession:
    settings = _session_options(threads if kind == "cpu" else 1, options.allow_spinning)
    providers = chain(kind, cuda_graphs=options.cuda_graphs, tensorrt_cache=options.tensorrt_cache)
    try:
        runtime = onnxruntime.InferenceSession(str(path), settings, providers=providers, enable_fallback=0)
    except (ort_errors.InvalidProtobuf, ort_errors.NoSuchFile) as error:
        raise InvalidFile(f"{path}: {_one_line(error)}") from error
    except Exception as error:  # onnxruntime's exceptions have no common ancestor but this
        raise _build_fault(path, kind, _one_line(error)) from error
    active = runtime.get_providers()[0]
    if active != NAMES[kind]:
        raise ProviderUnavailable(f"execution provider {kind} was asked for, but {path} got {active}")
    return OpenSession(runtime, kind, settings.intra_op_num_threads)


def _build_fault(path: Path, kind: Kind, message: str) -> ModelRejected | ProviderUnavailable:
    """Whose fault a failed build is: the file's, or the GPU's (then its message speaks of CUDA)."""
    if "No graph was found" in message:  # an empty file is a protobuf of nothing
        return InvalidFile(f"{path}: {message}")
    if "External data path" in message:
        return ContractMismatch(
            f"{path}: its weights lie in another file, which no checksum covers; export it with them inside"
        )
    if kind != "cpu" and ("CUDA" in message or "TensorRT" in message or "EP Error" in message):
        return ProviderUnavailable(f"execution provider {kind} was asked for, but it failed: {message}")
    return LoadFailed(f"{path}: the runtime cannot build a session: {message}")


def shrink(
    session: onnxruntime.InferenceSession, kind: Kind, inputs: Mapping[str, NDArray[np.uint8]]
) -> None:
    """Run a session once more, and have it give back its activations' memory with that.

    It would be given back with the session as well, but a session goes under the interpreter's lock: for a
    ResNet-18 that has run large batches the whole process then stands still for a tenth of a second.
    """
    options = onnxruntime.RunOptions()
    arenas = "cpu:0" if kind == "cpu" else "cpu:0;gpu:0"
    options.add_run_config_entry("memory.enable_memory_arena_shrinkage", arenas)
    leave_uncaptured(options)
    session.run(None, inputs, options)


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())


def _session_options(threads: int, allow_spinning: bool) -> onnxruntime.SessionOptions:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3  # errors; a model's harmless warnings are not the operator's business
    settings.add_session_config_entry(_WEIGHTS_BESIDE, os.devnull)
    settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(allow_spinning)))
    return settings
