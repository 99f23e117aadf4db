"""Runs on a GPU with buffers that stay: bound once for each batch size, filled and read by every batch of it.

::

    pixels ─copy─▶ page-locked memory ─copy by the device─▶ input buffer ─▶ graph ─▶ output buffers ─▶ arrays
                   (once, for the largest size)             (on the device, one set a batch size)

Without it the runtime allocates both ends of every run, and the device waits for memory that the system could
move meanwhile. Addresses that stay are also what CUDA graphs need.

Source: ONNX Runtime, "I/O Binding" and "CUDA Execution Provider: enable_cuda_graph".
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.artifact import INPUT_NAME
from service.engine.contract import OUTPUTS
from service.engine.providers import Kind

# Each captured graph has a number; a batch size is one.
_GRAPH_ID: Final = "gpu_graph_id"
_NOT_CAPTURED: Final = "-1"
_DEVICES: Final[Mapping[Kind, str]] = {"cpu": "cpu", "cuda": "cuda", "tensorrt": "cuda"}


class Bindings:
    """All buffers of one session, by batch size. For one thread at a time.

    Args:
        session: Whose runs they are for.
        kind: Of the provider that it runs on.
        staging: uint8 [N, H, W, C], N the largest batch size; page-locked where the device copies from it.
        classes: K of the outputs.
        buckets: The batch sizes that are run, ascending; a smaller batch is filled up with what lies there.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        kind: Kind,
        staging: NDArray[np.uint8],
        classes: int,
        buckets: Sequence[int],
    ) -> None:
        self._staging = staging
        self._sizes = {
            size: _Size(session, _DEVICES[kind], (size, *staging.shape[1:]), classes) for size in buckets
        }

    def run(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits and probabilities, float32 [N, K] each, of a batch.

        Args:
            pixels: uint8 [N, H, W, C], N at most the largest batch size; not modified.
        """
        n = len(pixels)
        size = next(size for size in self._sizes if size >= n)
        self._staging[:n] = pixels
        logits, probabilities = self._sizes[size].run(self._staging[:size])
        return logits[:n], probabilities[:n]


class _Size:
    """The buffers of one batch size."""

    def __init__(
        self, session: onnxruntime.InferenceSession, device: str, shape: tuple[int, ...], classes: int
    ) -> None:
        make = onnxruntime.OrtValue.ortvalue_from_shape_and_type
        self._session = session
        self._input = make(shape, np.uint8, device)
        self._outputs = [make((shape[0], classes), np.float32, device) for _ in OUTPUTS]
        self._binding = session.io_binding()
        self._binding.bind_ortvalue_input(INPUT_NAME, self._input)
        for name, output in zip(OUTPUTS, self._outputs, strict=True):
            self._binding.bind_ortvalue_output(name, output)
        self._options = onnxruntime.RunOptions()
        self._options.add_run_config_entry(_GRAPH_ID, str(shape[0]))

    def run(self, pixels: NDArray[np.uint8]) -> list[NDArray[np.float32]]:
        """The outputs for pixels of exactly this size, in arrays of their own."""
        self._input.update_inplace(pixels)
        self._session.run_with_iobinding(self._binding, self._options)
        return [np.array(output.numpy()) for output in self._outputs]


def leave_uncaptured(options: onnxruntime.RunOptions) -> None:
    """Have a run with these options neither record a CUDA graph nor replay one."""
    options.add_run_config_entry(_GRAPH_ID, _NOT_CAPTURED)
