"""``make gpu-check``: is CUDA really active, does it agree with the CPU, and what does it bring?

::

    no NVIDIA driver          says so, exit 0
    driver, no model          says so, exit 1
    driver, CUDA unusable     says what is missing, exit 1
    CUDA runs                 for each model: operators by provider (from a profile), logits beside the
                              CPU's, instances a second by batch size; exit 1 where they disagree
                              the same with CUDA graphs, and with TensorRT where it is installed
                              the whole service on the GPU and on the CPU, by number of clients

The list of a session's providers proves little: a session lists CUDA and may still run its operators on
the CPU. So the runtime's own profile says where each operator ran.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from benchmarks.numbers import positive
from service.artifact import INPUT_NAME
from service.engine import Engine, EngineOptions, Provider
from service.engine.providers import NAMES, Kind, chain
from service.errors import FoldserveError, InvalidConfiguration, LoadFailed, ProviderUnavailable
from service.hardware import has_driver
from service.settings import Settings
from service.tuning import subject
from service.tuning.load import Generator, percentile, request_bytes
from service.tuning.process import running

INSTANCES = 64
BATCH_SIZES = (1, 8, 32, 64)
REPEATS = 20
CLIENTS = (1, 8, 32, 64)


class Disagreement(Exception):
    """The provider is not active, or its logits are not the CPU's."""


@dataclass(frozen=True, slots=True)
class ModelCheck:
    """One model on one provider beside the CPU.

    Attributes:
        operators: How many operators ran on each provider, by its name.
        error: max|Δ logits| / max|CPU logits|.
        tolerance: What the model file allows on this kind of provider.
        per_second: Instances a second by batch size, on the provider and on the CPU.
    """

    model: str
    operators: dict[str, int]
    error: float
    tolerance: float
    per_second: dict[str, dict[int, float]]


@dataclass(frozen=True, slots=True)
class Served:
    """What the clients of the whole service see: answers a second and p99 in ms, by their number."""

    model: str
    provider: str
    per_second: dict[int, float]
    p99_ms: dict[int, float]


def main(arguments: Sequence[str] | None = None) -> int:
    """Checks every model of the repository; the exit code of the picture above."""
    options = _parser().parse_args(arguments)
    if not has_driver():
        print("gpu-check: no NVIDIA driver on this machine, so there is nothing to check")
        return 0
    try:
        files = _model_files(options.repository)
        with tempfile.TemporaryDirectory() as cache:
            checks = [check(path, variant) for path in files for variant in variants(path, Path(cache))]
        served = [
            serve(options.repository, name, kind, options.seconds)
            for name in sorted({path.parents[1].name for path in files})
            for kind in ("cuda", "cpu")
        ]
    except (Disagreement, FoldserveError) as error:
        print(f"gpu-check: {error}", file=sys.stderr)
        return 1
    write(checks, served, options.result)
    return 0


def _model_files(repository: Path) -> list[Path]:
    """Every model file of a repository.

    Raises:
        InvalidConfiguration: There is none, so that nothing would be checked.
    """
    files = sorted(repository.glob("*/*/model*.onnx"))
    if not files:
        raise InvalidConfiguration(f"no model in '{repository}'; `make model` makes one")
    return files


def variants(path: Path, cache: Path) -> list[EngineOptions]:
    """The ways to run a model on a GPU that there are here; says which of them are lacking, and why."""
    found = [EngineOptions(provider=Provider.CUDA)]
    optional = {
        "CUDA graphs": EngineOptions(provider=Provider.CUDA, cuda_graphs=True),
        "TensorRT": EngineOptions(provider=Provider.TENSORRT, tensorrt_cache=cache),
    }
    for name, options in optional.items():
        try:
            Engine.load(path, options)
        except (LoadFailed, ProviderUnavailable) as error:
            print(f"gpu-check: {path}: without {name}: {error}", file=sys.stderr)
        else:
            found.append(options)
    return found


def check(path: Path, options: EngineOptions) -> ModelCheck:
    """One model file with these options beside the CPU.

    Raises:
        Disagreement: No operator ran on the provider, or the logits differ beyond the file's tolerance.
        ProviderUnavailable: The session did not get the provider.
        ModelRejected: The file is not fit to serve.
    """
    kind = options.provider.kind
    engine = Engine.load(path, options)
    reference = Engine.load(path, EngineOptions(provider=Provider.CPU))
    for size in engine.buckets:
        engine.warm(size)
    engine.self_test()
    images = np.random.default_rng(0).integers(0, 256, (INSTANCES, *engine.input_shape), np.uint8)
    operators = operators_by_provider(path, kind, images)
    if not operators[NAMES[kind]]:
        raise Disagreement(f"{path}: the session lists {NAMES[kind]}, but no operator ran on it")
    tolerance = engine.metadata.selftest.tolerance[kind]
    error = disagreement(engine.run(images)[0], reference.run(images)[0])
    if not error <= tolerance:
        raise Disagreement(f"{path}: logits differ by {error:.3g} of the largest, {tolerance:.3g} is allowed")
    speeds: dict[str, dict[int, float]] = {kind: speed(engine, images), "cpu": speed(reference, images)}
    name = f"{path} with CUDA graphs" if options.cuda_graphs else str(path)
    return ModelCheck(name, dict(operators), error, tolerance, speeds)


def serve(repository: Path, model: str, kind: Kind, seconds: float) -> Served:
    """The whole service with one model, in closed loops.

    Raises:
        FoldserveError: It does not start, or stops answering.
    """
    found = subject.find(Settings(repository=repository, models=(model,)), 0)
    requests = [request_bytes("http://127.0.0.1", image, subject.MEDIA_TYPE) for image in found.images(None)]
    flags = ["--repository", str(repository), "--models", model, "--execution-provider", kind]
    with running(flags) as service, Generator(service.url, requests) as generator:
        generator.closed(CLIENTS[-1], seconds)
        loads = {clients: generator.closed(clients, seconds) for clients in CLIENTS}
    return Served(
        model,
        kind,
        {clients: load.answered_per_s for clients, load in loads.items()},
        {clients: percentile(load.latencies_ms(), 99) for clients, load in loads.items()},
    )


def operators_by_provider(path: Path, kind: Kind, images: NDArray[np.uint8]) -> Counter[str]:
    """How many operators of one inference ran on each provider, from the runtime's profile."""
    with tempfile.TemporaryDirectory() as folder:
        options = onnxruntime.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = onnxruntime.InferenceSession(str(path), options, providers=chain(kind))
        session.run(None, {INPUT_NAME: images})
        events = json.loads(Path(session.end_profiling()).read_text())
    return Counter(
        event["args"]["provider"]
        for event in events
        if event.get("cat") == "Node" and "provider" in event.get("args", {})
    )


def disagreement(logits: NDArray[np.float32], reference: NDArray[np.float32]) -> float:
    """max|Δ| / max|reference|; not a number where the logits are none."""
    return float(np.abs(logits - reference).max() / np.abs(reference).max())


def speed(engine: Engine, images: NDArray[np.uint8]) -> dict[int, float]:
    """Instances a second by batch size: the median of `REPEATS` runs after one that warms."""
    return {size: size / _median_s(engine, images[:size]) for size in BATCH_SIZES}


def write(checks: Sequence[ModelCheck], served: Sequence[Served], result: Path) -> None:
    """Prints the table and writes the result file."""
    result.parent.mkdir(parents=True, exist_ok=True)
    document = {
        "onnxruntime": onnxruntime.__version__,
        "models": [asdict(each) for each in checks],
        "served": [asdict(each) for each in served],
    }
    result.write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    for each in checks:
        print(
            f"{each.model}: error {each.error:.2g} of {each.tolerance:.2g} allowed, ran on {each.operators}"
        )
        for size in BATCH_SIZES:
            rates = ", ".join(f"{kind} {rates[size]:,.0f}/s" for kind, rates in each.per_second.items())
            print(f"  batch {size:>3}: {rates}")
    for load in served:
        cells = ", ".join(
            f"{clients} clients {load.per_second[clients]:,.0f}/s (p99 {load.p99_ms[clients]:.1f} ms)"
            for clients in CLIENTS
        )
        print(f"{load.model} served on {load.provider}: {cells}")
    print(f"result in {result}")


def _median_s(engine: Engine, images: NDArray[np.uint8]) -> float:
    engine.run(images)
    seconds = []
    for _ in range(REPEATS):
        begin = time.perf_counter()
        engine.run(images)
        seconds.append(time.perf_counter() - begin)
    return statistics.median(seconds)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.gpu_check",
        description="Prove that CUDA is active and agrees with the CPU, for every model of a repository; "
        "without a GPU there is nothing to do.",
    )
    parser.add_argument(
        "--repository", type=Path, default=Path("models"), help="folder of models (default: %(default)s)"
    )
    parser.add_argument(
        "--result",
        type=Path,
        default=Path("reports/gpu-check.json"),
        help="where every figure goes (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds",
        type=positive(float),
        default=5.0,
        help="of each load on the whole service (default: %(default)g)",
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
