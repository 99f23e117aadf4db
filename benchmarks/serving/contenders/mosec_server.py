"""mosec: a front in Rust; each worker takes a batch of bodies, decodes and infers on one thread."""

from __future__ import annotations

import os
import sys
from pathlib import Path

from mosec import Server, Worker

from benchmarks.serving.classifier import Classifier

WAIT_MS = 1  # the shortest wait for company that mosec knows


class Classify(Worker):
    """One worker process."""

    def __init__(self) -> None:
        self._classifier = Classifier(Path(os.environ["MODEL"]), threads=1)

    def deserialize(self, data: bytes) -> bytes:
        """The body as it is."""
        return data

    def forward(self, data: bytes | list[bytes]) -> dict[str, float] | list[dict[str, float]]:
        """mosec hands over a list where it batches, and one body where it does not."""
        if isinstance(data, list):
            return self._classifier.classify(data)
        return self._classifier.classify([data])[0]


if __name__ == "__main__":
    os.environ["MODEL"], port, workers, batch = sys.argv[1:]
    sys.argv[1:] = ["--port", port, "--address", "127.0.0.1", "--log-level", "error"]
    server = Server()
    server.append_worker(Classify, num=int(workers), max_batch_size=int(batch), max_wait_time=WAIT_MS)
    server.run()
