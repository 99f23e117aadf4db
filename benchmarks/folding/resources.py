"""``python -m benchmarks.folding.resources``: the time and the memory that one fold takes, in a new process.

::

    process ─ import ─ fold of a tiny network ─ network ─ fold ─▶ figures as JSON
                       loads torch's tracer     model     peak − model = what the fold takes

Memory is the process's own peak of resident memory during the fold, over what is resident when the network is
built: the folded weights, every float64 copy, and what the allocator does not give back. torch.export loads
its tracer at its first use, the same for every network; that is timed by itself. So is the matrix library's
workspace there before, which differs from processor to processor. Linux only.
"""

from __future__ import annotations

import argparse
import ctypes
import gc
import json
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.export import Dim

from model_export.architectures import build
from model_export.folding import fold
from tests.folding.collection.statistics import MIXED, randomise

_BATCH = ({0: Dim("batch")},)


@dataclass(frozen=True, slots=True)
class Resources:
    """What folding a network takes.

    Attributes:
        architecture: Of `model_export.architectures`.
        loading_s: torch's tracer, once a process.
        fold_s: The fold.
        model_bytes: Of the network's weights.
        fold_bytes: The highest resident memory during the fold, the network's own not counted.
    """

    architecture: str
    loading_s: float
    fold_s: float
    model_bytes: int
    fold_bytes: int

    @property
    def models(self) -> float:
        """The fold's memory as a multiple of the network's own."""
        return self.fold_bytes / self.model_bytes


def measure(architecture: str, input_shape: tuple[int, int, int]) -> Resources:
    """Fold a network on an example of two pictures."""
    _settle()
    loading_s = _seconds(nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval(), torch.randn(2, 3, 8, 8))
    model = build(architecture, input_shape=input_shape, classes=1000)
    randomise(model, MIXED)
    model.eval()
    pictures = torch.randn(2, *input_shape)
    resident = _forget_the_peak()
    fold_s = _seconds(model, pictures)
    weights = sum(weight.nbytes for weight in model.state_dict().values())
    return Resources(architecture, loading_s, fold_s, weights, _status("VmHWM") - resident)


def _settle() -> None:
    """One thread on one CPU, with the matrix library's workspace in place.

    Linux counts resident pages on each CPU by itself and reads the counts roughly: on a machine of many CPUs
    a process that moves between them is some megabytes off.
    """
    os.sched_setaffinity(0, {ctypes.CDLL("libc.so.6").sched_getcpu()})
    torch.set_num_threads(1)
    torch.manual_seed(0)
    square = torch.randn(1024, 1024, dtype=torch.float64)
    torch.mm(square, square)


def _seconds(model: nn.Module, pictures: Tensor) -> float:
    start = time.perf_counter()
    fold(model, (pictures,), dynamic_shapes=_BATCH)
    return time.perf_counter() - start


def _forget_the_peak() -> int:
    """Resident bytes from here on; what the C library holds back is given back first."""
    gc.collect()
    ctypes.CDLL("libc.so.6").malloc_trim(0)
    Path("/proc/self/clear_refs").write_text("5", encoding="ascii")
    return _status("VmRSS")


def _status(key: str) -> int:
    """A figure of this process, in bytes."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(1024 * int(line.split()[1]) for line in lines if line.startswith(f"{key}:"))


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.folding.resources", description=__doc__)
    parser.add_argument("architecture", nargs="?", default="resnet18")
    parser.add_argument("--input", default="3x224x224", metavar="CxHxW")
    options = parser.parse_args()
    channels, height, width = map(int, options.input.split("x"))
    found = measure(options.architecture, (channels, height, width))
    print(json.dumps(asdict(found) | {"models": round(found.models, 2)}))


if __name__ == "__main__":
    main()
