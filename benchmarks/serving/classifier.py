"""What every contender but our own service runs: Pillow decodes, ONNX Runtime infers."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")  # read on import; writes a device id otherwise

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image


class Classifier:
    """One session and the decoding that belongs to it.

    Args:
        model: A model file of ours: uint8 [N, H, W, C] in, probabilities out.
        threads: Of one inference; 0: as many as ONNX Runtime takes by itself.
    """

    def __init__(self, model: Path, threads: int = 0) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = threads
        self._session = onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])
        _, height, width, channels = self._session.get_inputs()[0].shape
        self._size = (width, height)
        self._mode = "L" if channels == 1 else "RGB"

    def decode(self, content: bytes) -> NDArray[np.uint8]:
        """An encoded image as uint8 [H, W, C]."""
        with Image.open(io.BytesIO(content)) as opened:
            image = opened.convert(self._mode)
        if image.size != self._size:
            image = image.resize(self._size, Image.Resampling.BILINEAR)
        pixels = np.asarray(image)
        return pixels[..., np.newaxis] if pixels.ndim == 2 else pixels

    def infer(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Probabilities, float32 [N, K], of uint8 [N, H, W, C]."""
        (probabilities,) = self._session.run(["probabilities"], {"images": batch})
        assert isinstance(probabilities, np.ndarray)  # noqa: S101  # onnxruntime's types know no better
        return probabilities

    def classify(self, contents: Sequence[bytes]) -> list[dict[str, float]]:
        """The most probable class of each image."""
        probabilities = self.infer(np.stack([self.decode(content) for content in contents]))
        return [{"index": int(row.argmax()), "probability": float(row.max())} for row in probabilities]
