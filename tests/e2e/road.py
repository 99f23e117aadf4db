"""The two commands of the road: `python -m model_export run`, then `python -m service`."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import psutil
from numpy.typing import NDArray
from PIL import Image

from loadtest import target
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
EXPORT_TIMEOUT_S = 1700
REQUEST_TIMEOUT_S = 30


@dataclass(frozen=True)
class Exported:
    """What an export left behind."""

    name: str
    repository: Path
    workdir: Path

    @property
    def report(self) -> Any:
        """The report of the newest version."""
        versions = sorted((self.repository / self.name).iterdir(), key=lambda folder: int(folder.name))
        return json.loads((versions[-1] / "report.json").read_text())


@dataclass(frozen=True)
class Served:
    """A ready service."""

    process: psutil.Process
    client: httpx.Client

    def probabilities(self, images: NDArray[np.uint8], labels: Sequence[str]) -> NDArray[np.float64]:
        """[N, K], in the order of ``labels``, one request a picture, each sent as PNG.

        Args:
            images: uint8 [N, H, W, C].
        """
        return self.probabilities_of_files(list(map(png, images)), labels)

    def probabilities_of_files(self, files: Sequence[bytes], labels: Sequence[str]) -> NDArray[np.float64]:
        """As `probabilities`, of encoded pictures of any kind and size."""
        return np.array([self._scores(data, labels) for data in files])

    def _scores(self, content: bytes, labels: Sequence[str]) -> list[float]:
        answer = self.client.post(
            "/predict",
            params={"top_k": len(labels)},
            content=content,
            headers={"Content-Type": "application/octet-stream"},
        )
        assert answer.status_code == 200, answer.text
        (prediction,) = answer.json()["predictions"]
        scores = {entry["label"]: entry["probability"] for entry in prediction["top"]}
        assert prediction["label"] == max(scores, key=lambda label: scores[label])
        return [scores[label] for label in labels]


def export(folder: Path, name: str, *flags: str, threads: int = 1) -> Exported:
    """A model made by the real program, in folders of its own.

    One thread is enough for a small network, and on a busy machine several spin for each other.
    """
    exported = Exported(name, folder / "models", folder / "run")
    command = [sys.executable, "-m", "model_export", "run", "--name", name]
    command += ["--repository", str(exported.repository), "--workdir", str(exported.workdir), *flags]
    done = subprocess.run(  # noqa: S603  # our own program
        command,
        capture_output=True,
        text=True,
        timeout=EXPORT_TIMEOUT_S,
        check=False,
        env=os.environ | {"OMP_NUM_THREADS": str(threads)},
    )
    assert done.returncode == 0, done.stderr
    return exported


@contextlib.contextmanager
def serve(repository: Path) -> Iterator[Served]:
    """A service over the repository, started by its real command, for the length of the block."""
    url = f"http://127.0.0.1:{free_port()}"
    command = shlex.join([sys.executable, "-m", "service", "--repository", str(repository)])
    with (
        target.running(url, command) as process,
        httpx.Client(base_url=url, timeout=REQUEST_TIMEOUT_S) as client,
    ):
        assert process is not None, f"another service answers at {url}"
        yield Served(psutil.Process(process.pid), client)


def png(image: NDArray[np.uint8]) -> bytes:
    """A picture, uint8 [H, W, C] with one or three channels, as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(2) if image.shape[2] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()
