"""``python -m benchmarks.precision``: int8 against float32 in ONNX Runtime, in interleaved pairs.

::

    ARCHITECTURE, random weights ─ fold ─ served graph ─┬─ model.onnx
                                                        └─ calibrate on random pictures ─ model.int8.onnx
    both by turns, several runs each ─▶ float32 time / int8 time, its median and its 95 % interval

Weights and pictures do not change the time. The accuracy of int8 is another question: a run with
``--precisions int8`` answers it.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Sequence
from pathlib import Path
from statistics import median

import numpy as np
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from torch.export import Dim

from benchmarks.folding.speed import trained_like
from model_export import cost, data, export, quantization
from model_export.architectures import build
from model_export.config import DataConfig
from model_export.folding import fold
from service.artifact import INPUT_NAME, Precision, Task

CALIBRATED_ON = 16  # random pictures: enough for ranges that exist


def write_files(
    architecture: str, shape: tuple[int, int, int], folder: Path, images: NDArray[np.uint8]
) -> None:
    """Writes the float32 and the int8 file of a network with random weights.

    Args:
        architecture: One of ours.
        shape: C, H, W.
        folder: Where to.
        images: uint8 [N, H, W, C], for the ranges.
    """
    torch.manual_seed(0)
    model = trained_like(build(architecture, input_shape=shape, classes=1000))
    inputs = (torch.randn(2, *shape),)
    program = fold(model, inputs, objective="speed", dynamic_shapes=({0: Dim("batch")},)).program
    network = export.network_graph(program)
    export.lower(network)
    contract = data.contract_for(DataConfig(input=shape), None)
    graph = export.served_graph(network, contract, Task.MULTICLASS, 1000)
    path = folder / Precision.FP32.file_name
    export.write_model_file(graph, path)
    plan = quantization.Int8Plan(is_reduced=quantization.products_saturate())
    ranges = quantization.calibrated_ranges(path, images)
    quantized = quantization.to_int8(path, ranges, plan)
    export.write_model_file(quantized, folder / Precision.INT8.file_name)


def session(path: Path, threads: int) -> ort.InferenceSession:
    """All optimisations on."""
    options = ort.SessionOptions()
    options.intra_op_num_threads = threads
    return ort.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])


def main(arguments: Sequence[str] | None = None) -> None:
    """Prints one line a batch size.

    Args:
        arguments: Without the program's name; None: those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.precision", description=__doc__)
    parser.add_argument("--architecture", default="resnet18")
    parser.add_argument("--side", type=int, default=224, help="of the square colour pictures")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--pairs", type=int, default=20, help="interleaved pairs a figure; at least 6")
    parser.add_argument("--threads", type=int, default=2, help="of ONNX Runtime, in one operator")
    parsed = parser.parse_args(arguments)
    shape = (3, parsed.side, parsed.side)
    generator = np.random.default_rng(0)
    largest = max(CALIBRATED_ON, *parsed.batches)
    images = generator.integers(0, 256, (largest, *shape[1:], 3), dtype=np.uint8)
    with tempfile.TemporaryDirectory() as name:
        write_files(parsed.architecture, shape, Path(name), images[:CALIBRATED_ON])
        slow, fast = (
            session(Path(name) / precision.file_name, parsed.threads)
            for precision in (Precision.FP32, Precision.INT8)
        )
        print(f"{parsed.architecture}, {parsed.threads} thread(s), ONNX Runtime {ort.__version__}")
        for batch in parsed.batches:
            feed = {INPUT_NAME: images[:batch]}
            timed = cost.timed_pairs(slow, fast, feed, pairs=parsed.pairs)
            ratios = [first / second for first, second in timed]
            low, high = cost.interval_of_median(ratios)
            milliseconds = [1e3 * median(column) for column in zip(*timed, strict=True)]
            print(
                f"batch {batch}: float32 {milliseconds[0]:.1f} ms, int8 {milliseconds[1]:.1f} ms, "
                f"{median(ratios):.2f} times as fast ({low:.2f} … {high:.2f})"
            )


if __name__ == "__main__":
    main()
