"""LitServe with batching. It takes JSON, so the picture travels as base64."""

from __future__ import annotations

import base64
import os
import sys
from pathlib import Path

import litserve
import numpy as np
from numpy.typing import NDArray

from benchmarks.serving.classifier import Classifier


class Classify(litserve.LitAPI):
    """Decodes each request, infers a batch at once."""

    def setup(self, device: str) -> None:  # noqa: ARG002  # the base class's signature
        """Builds the session in the worker process."""
        self._classifier = Classifier(Path(os.environ["MODEL"]))

    def decode_request(self, request: dict[str, list[str]]) -> NDArray[np.uint8]:
        """The first image of the body."""
        return self._classifier.decode(base64.b64decode(request["images"][0]))

    def predict(self, batch: NDArray[np.uint8]) -> NDArray[np.float32]:
        """LitServe stacks arrays into one."""
        return self._classifier.infer(batch)

    def encode_response(self, output: NDArray[np.float32]) -> dict[str, float]:
        """One row of the batch."""
        return {"index": int(output.argmax()), "probability": float(output.max())}


if __name__ == "__main__":
    os.environ["MODEL"], port = sys.argv[1:]
    api = Classify(max_batch_size=64, batch_timeout=0.001)
    litserve.LitServer(api, accelerator="cpu").run(
        port=int(port), log_level="warning", generate_client_file=False
    )
