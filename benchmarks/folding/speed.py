"""``python -m benchmarks.folding.speed``: folded against unfolded, as ``docs/folding-speed.md``.

::

    network ─┬─ torch.export ─────────▶ ONNX ─┐
             └─ fold(objective="speed") ▶ ONNX ─┴▶ two sessions, all optimisations on
                                                    │  pairs: both, in random order, again and again
                                                    ▼
                        speed-up = unfolded / folded, its median, its 95 % interval

Both sessions get the same weights, the same pictures and the same number of threads. Timing the two next to
each other, in pairs, keeps what else the machine does out of the ratio. Figures are kept as they come: a
measurement that was stopped goes on where it was, unless anything it depends on has changed since.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import random
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from statistics import median

import numpy as np
import onnx_ir as ir
import onnxruntime as ort
import torch
from numpy.typing import NDArray
from rich.progress import Progress
from torch import nn
from torch.export import Dim, ExportedProgram

import model_export.architectures
import model_export.export
import model_export.folding
from benchmarks.folding.journal import Journal, digest_of
from benchmarks.page import add_flag, deliver
from model_export.architectures import build
from model_export.cost import interval_of_median
from model_export.export import lower, network_graph
from model_export.folding import count_affine_maps, fold
from tests.folding.collection.judging import quiet
from tests.folding.collection.statistics import NEGATIVE, POSITIVE, Signs, randomise

# A sample shorter than this is mostly the clock and the scheduler.
SHORTEST_SAMPLE_S = 0.02
# As many pairs as fit into this time, within these bounds.
FIGURE_S = 20.0
PAIRS = (30, 100)
# A fold for speed must not be slower than not folding; so much is left to the clock.
SLOWEST = 0.98
# Training starts at γ = 1 and turns few of them negative: one in ten is more than is usual.
SIGNS: Signs = (*NEGATIVE, *POSITIVE * 9)

HEAD = """# The speed of folded networks

Time of the unfolded network divided by that of the folded one (`objective="speed"`), both under ONNX
Runtime {runtime} with all its optimisations, which fold pairs of convolution and BatchNorm by themselves.
Above 1 the fold is faster. Each figure is the median of {fewest} to {most} interleaved pairs of one run, with
its 95 % interval (order statistics). {threads} thread(s), {machine}; random weights, one γ in ten negative.
*Maps*: how many per-channel affine maps the network has, and how many the fold left.

Made by `make bench-folding-speed`, on a machine that did nothing else. "No difference" is said where the
interval contains 1.
"""


@dataclass(frozen=True, slots=True)
class Case:
    """A network and the pictures it is measured on."""

    title: str
    architecture: str
    input_shape: tuple[int, int, int]
    classes: int


CASES = (
    Case("the article's network", "article_cnn", (1, 28, 28), 10),
    Case("pre-activation ResNet-18", "preact_resnet18", (3, 32, 32), 10),
    Case("DenseNet-121", "densenet121", (3, 224, 224), 1000),
    Case("MobileNetV2", "mobilenet_v2", (3, 224, 224), 1000),
    Case("RepVGG-A0", "repvgg_a0", (3, 224, 224), 1000),
    Case("ResNet-18", "resnet18", (3, 224, 224), 1000),
)


@dataclass(frozen=True, slots=True)
class SpeedUp:
    """Unfolded time over folded time of one network at one batch size.

    Attributes:
        architecture: Of a `Case`.
        batch: Pictures at once.
        maps_before, maps_after: Per-channel affine maps of the two networks.
        pairs: How many were timed.
        folded_ms: Median of the folded network, for the whole batch.
        low, middle, high: The median ratio and its interval.
    """

    architecture: str
    batch: int
    maps_before: int
    maps_after: int
    pairs: int
    folded_ms: float
    low: float
    middle: float
    high: float

    @property
    def verdict(self) -> str:
        """In words, what the interval allows to say."""
        if self.low <= 1 <= self.high:
            return "no difference"
        return "faster" if self.low > 1 else "slower"


def trained_like(model: nn.Module) -> nn.Module:
    """Evaluating, with statistics as they are after training: γ around 1, few negative."""
    randomise(model, SIGNS)
    return model.eval()


@dataclass(frozen=True, slots=True)
class Pair:
    """A network unfolded and folded, ready to run, and how many affine maps each has."""

    unfolded: ort.InferenceSession
    folded: ort.InferenceSession
    maps_before: int
    maps_after: int


@lru_cache(maxsize=1)
def prepare(case: Case, threads: int) -> Pair:
    """Both forms of a network."""
    torch.manual_seed(0)
    model = trained_like(build(case.architecture, input_shape=case.input_shape, classes=case.classes))
    inputs = (torch.randn(2, *case.input_shape),)
    shapes = ({0: Dim("batch")},)
    with quiet():
        unfolded = torch.export.export(model, inputs, dynamic_shapes=shapes)
        result = fold(model, inputs, objective="speed", dynamic_shapes=shapes)
        first, second = (_session(program, threads) for program in (unfolded, result.program))
    return Pair(first, second, count_affine_maps(unfolded), result.report.affine_maps_left)


def _session(program: ExportedProgram, threads: int) -> ort.InferenceSession:
    graph = network_graph(program)
    lower(graph)
    options = ort.SessionOptions()
    options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
    options.intra_op_num_threads = threads
    serialised = ir.to_proto(graph).SerializeToString()
    return ort.InferenceSession(serialised, options, providers=["CPUExecutionProvider"])


def _runner(session: ort.InferenceSession, pixels: NDArray[np.float32]) -> Callable[[], object]:
    feeds = {session.get_inputs()[0].name: pixels}
    return lambda: session.run(None, feeds)


def _seconds(run: Callable[[], object], repeats: int) -> float:
    start = time.perf_counter()
    for _ in range(repeats):
        run()
    return (time.perf_counter() - start) / repeats


def compare(unfolded: Callable[[], object], folded: Callable[[], object]) -> list[tuple[float, float]]:
    """Seconds of (unfolded, folded), a pair at a time, each pair in a random order."""
    slowest = max(_seconds(unfolded, 2), _seconds(folded, 2))  # warms up as well
    repeats = max(1, math.ceil(SHORTEST_SAMPLE_S / slowest))
    fewest, most = PAIRS
    pairs = min(max(fewest, int(FIGURE_S / (2 * repeats * slowest))), most)
    order = random.Random(0)  # seeded: which comes first is the same in every run
    timed = []
    for _ in range(pairs):
        if order.random() < 0.5:
            first, second = _seconds(unfolded, repeats), _seconds(folded, repeats)
        else:
            second, first = _seconds(folded, repeats), _seconds(unfolded, repeats)
        timed.append((first, second))
    return timed


def measure(case: Case, pair: Pair, batch: int) -> SpeedUp:
    """One network at one batch size."""
    pixels = np.random.default_rng(0).standard_normal((batch, *case.input_shape), dtype=np.float32)
    timed = compare(_runner(pair.unfolded, pixels), _runner(pair.folded, pixels))
    ratios = [a / b for a, b in timed]
    low, high = interval_of_median(ratios)
    folded_ms = median(b for _, b in timed) * 1e3
    maps = pair.maps_before, pair.maps_after
    return SpeedUp(case.architecture, batch, *maps, len(timed), folded_ms, low, median(ratios), high)


def page(results: Sequence[SpeedUp], threads: int) -> str:
    """The markdown page."""
    machine = f"{os.cpu_count()} × {_processor()}"
    fewest, most = PAIRS
    head = HEAD.format(runtime=ort.__version__, fewest=fewest, most=most, threads=threads, machine=machine)
    lines = [
        "| network | pictures | maps | batch | folded, ms | speed-up | 95 % interval | |",
        "| --- | --- | ---: | ---: | ---: | ---: | ---: | --- |",
    ]
    cases = {case.architecture: case for case in CASES}
    for r in results:
        case = cases[r.architecture]
        shape, maps = "×".join(map(str, case.input_shape)), f"{r.maps_before} → {r.maps_after}"
        interval = f"{r.low:.3f} … {r.high:.3f}"
        row = (case.title, shape, maps, r.batch, f"{r.folded_ms:.3g}", f"{r.middle:.3f}", interval, r.verdict)
        lines.append(f"| {' | '.join(map(str, row))} |")
    return "\n".join([head, *lines, ""])


def _processor() -> str:
    """The processor's name, as Linux tells it; else as Python does."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text(encoding="utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def main() -> int:
    """Measure what the journal has not yet, and print or write the page.

    Returns:
        0; 1 where a folded network is slower than is allowed.
    """
    options = _parser().parse_args()
    wanted = options.architectures or [case.architecture for case in CASES]
    chosen = [(c, batch) for c in CASES if c.architecture in wanted for batch in options.batches]
    journal = _journal(options.journal, options.threads)
    known = {(result.architecture, result.batch) for result in journal.results}
    with Progress() as progress:
        for case, batch in progress.track(chosen, description="networks × batch sizes"):
            if (case.architecture, batch) not in known:
                journal.add(measure(case, prepare(case, options.threads), batch))
    figures = {(result.architecture, result.batch): result for result in journal.results}
    return _tell([figures[case.architecture, batch] for case, batch in chosen], options)


def _tell(results: Sequence[SpeedUp], options: argparse.Namespace) -> int:
    text = page(results, options.threads)
    deliver(text, options.write)
    slow = [r for r in results if r.high < SLOWEST]
    for r in slow:
        print(
            f"{r.architecture} at batch {r.batch}: {r.middle:.3f}, at most {r.high:.3f}; allowed is {SLOWEST}"
        )
    return int(bool(slow))


def _journal(path: Path, threads: int) -> Journal[SpeedUp]:
    packages = (model_export.folding, model_export.export, model_export.architectures)
    folders = [Path(str(package.__file__)).parent for package in packages]
    return Journal(path, digest_of(folders, (ort.__version__, torch.__version__, str(threads))), SpeedUp)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.folding.speed", description=__doc__)
    names = ", ".join(case.architecture for case in CASES)
    parser.add_argument("architectures", nargs="*", metavar="NETWORK", help=f"some of {names}")
    parser.add_argument("--batches", type=int, nargs="+", default=[1, 8, 64])
    parser.add_argument("--threads", type=int, default=1, help="of ONNX Runtime, in one operator")
    add_flag(parser)
    parser.add_argument("--journal", type=Path, metavar="FILE", default=Path("reports/folding-speed.jsonl"))
    return parser


if __name__ == "__main__":
    sys.exit(main())
