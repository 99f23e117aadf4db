"""``python -m benchmarks.observability``: the cost of metrics, logs and traces, and of a scrape."""

from __future__ import annotations

import argparse
import contextlib
import http.client
import math
import random
import socket
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from statistics import fmean, median, stdev

import numpy as np
from scipy.stats import t as student

from benchmarks.serving import generator, workloads
from loadtest import target
from loadtest.bodies import encode
from service.artifact import Histogram, ReferenceDistributions
from service.batcher import FinishedBatch
from service.metrics import Metrics, ModelMetrics

LIMIT = 0.03
CONCURRENCY = 32
MODELS = 10
SCRAPES = 50
WARM_UP_S = 2.0


@dataclass(frozen=True, slots=True)
class Cost:
    """A share of the throughput that is lost, with 95 % confidence between low and high."""

    name: str
    share: float
    low: float
    high: float

    @property
    def is_held(self) -> bool:
        """Whether it is not shown to be above the limit."""
        return self.low <= LIMIT


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints.

    Returns:
        0 when no cost is shown to exceed the limit, else 1.
    """
    options = _parser().parse_args(arguments)
    print(_scrape_line())
    with tempfile.TemporaryDirectory() as name, _services(options.folder) as urls:
        workload = workloads.prepare("small", options.folder)
        bodies = [encode("raw", [picture]) for picture in workload.pictures]
        file = generator.write_bodies(bodies, Path(name) / "bodies")
        rounds = _play(urls, file, bodies[0].content_type, options)
    for variant in urls:
        print(f"{variant:<11} {median(each[variant] for each in rounds):,.0f} requests/s (median)")
    costs = [cost(variant, rounds) for variant in ("observed", "traced")]
    for each in costs:
        bounds = f"95 % between {each.low:+.2%} and {each.high:+.2%}"
        print(f"{each.name:<11} costs {each.share:+.2%} of the throughput, {bounds}, {len(rounds)} rounds")
    return 0 if all(each.is_held for each in costs) else 1


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m benchmarks.observability", description=__doc__)
    parser.add_argument("--rounds", type=int, default=30, help="each loads every variant once")
    parser.add_argument("--seconds", type=int, default=2, help="of load, each time")
    parser.add_argument("--folder", type=Path, default=Path("reports/bench"), help="where the model is kept")
    return parser


def cost(variant: str, rounds: Sequence[dict[str, float]]) -> Cost:
    """What a variant loses against ``unobserved``: mean of the logarithms of the rounds' ratios, t interval.

    Args:
        rounds: Requests a second by variant; at least two.
    """
    ratios = [math.log(each[variant] / each["unobserved"]) for each in rounds]
    half = float(student.ppf(0.975, len(ratios) - 1)) * stdev(ratios) / math.sqrt(len(ratios))
    mean = fmean(ratios)
    return Cost(variant, 1 - math.exp(mean), 1 - math.exp(mean + half), 1 - math.exp(mean - half))


@contextlib.contextmanager
def _services(models: Path) -> Iterator[dict[str, str]]:
    """Variant → URL, all of them running."""
    model = workloads.prepare("small", models).model
    # One worker: its processes would be started without what `unobserved` silences.
    common = f"--repository {model.parents[2]} --models small --workers 1"
    modules = {
        "unobserved": "benchmarks.observability.unobserved",
        "observed": "service",
        "traced": "service",
    }
    with contextlib.ExitStack() as stack:
        endpoint = stack.enter_context(_collector())
        urls = {variant: f"http://127.0.0.1:{_free_port()}" for variant in modules}
        for variant, module in modules.items():
            tracing = f"--otlp-endpoint {endpoint}" if variant == "traced" else ""
            start = f"{sys.executable} -m {module} {common} {tracing}"
            stack.enter_context(target.running(urls[variant], start))
        yield urls


def _play(
    urls: dict[str, str], file: Path, content_type: str, options: argparse.Namespace
) -> list[dict[str, float]]:
    """Requests a second by variant, round by round."""
    shuffler = random.Random(0)
    for url in urls.values():
        generator.drive(url, "/predict", content_type, file, CONCURRENCY, WARM_UP_S)
    rounds = []
    for number in range(options.rounds):
        print(f"\rround {number + 1}/{options.rounds}", end="", file=sys.stderr, flush=True)
        each = {}
        for variant in shuffler.sample([*urls], len(urls)):
            with _scraped(urls[variant], options.seconds / 2):
                load = generator.drive(
                    urls[variant], "/predict", content_type, file, CONCURRENCY, options.seconds
                )
            each[variant] = load.requests_per_s
        rounds.append(each)
    print(file=sys.stderr)
    return rounds


@contextlib.contextmanager
def _scraped(url: str, after_s: float) -> Iterator[None]:
    """One scrape in the middle, as of a Prometheus that comes more often than most."""
    timer = threading.Timer(after_s, _scrape, (url,))
    timer.start()
    yield
    timer.join()


def _scrape(url: str) -> None:
    connection = http.client.HTTPConnection(url.removeprefix("http://"))
    connection.request("GET", "/metrics")
    connection.getresponse().read()
    connection.close()


@contextlib.contextmanager
def _collector() -> Iterator[str]:
    """The endpoint of a collector that throws everything away."""
    with ThreadingHTTPServer(("127.0.0.1", 0), _Discard) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}/v1/traces"
        server.shutdown()


class _Discard(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["Content-Length"]))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


def _free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port: int = listener.getsockname()[1]
        return port


def _scrape_line() -> str:
    """How long the text of ten busy models takes, in both formats."""
    metrics = Metrics(version="0")
    models = [_busy(metrics, f"m{number}") for number in range(MODELS)]
    plain, openmetrics = (_scrape_ms(metrics, models, openmetrics=form) for form in (False, True))
    size = f"{len(metrics.render()[0]):,} bytes"
    return f"scrape of {MODELS} models, {size}: {plain:.1f} ms, as OpenMetrics {openmetrics:.1f} ms (median)"


def _busy(metrics: Metrics, name: str) -> ModelMetrics:
    """A model with ten labels and a reference, that has been asked."""
    random_ = np.random.default_rng(0)
    even = Histogram(edges=tuple(range(1, 16)), shares=(1 / 16,) * 16)
    reference = ReferenceDistributions(
        instances=1000, mean=even, contrast=even, size=even, confidence=even, labels=(0.1,) * 10
    )
    model = metrics.for_model(name, "1", [*map(str, range(10))], reference=reference)
    for _ in range(10):
        rows = random_.dirichlet(np.ones(10), 64).astype(np.float32)
        model.batch_finished(FinishedBatch(rows, rows, 0.002, random_.gamma(2, 0.001, 64).tolist(), 0.0))
    return model


def _scrape_ms(metrics: Metrics, models: Sequence[ModelMetrics], *, openmetrics: bool) -> float:
    pixels, times_ms = np.zeros((224, 224, 3), np.uint8), []
    for _ in range(SCRAPES):
        for drift in (model.drift for model in models if model.drift is not None):
            for _ in range(100):  # as many samples as ten seconds leave
                drift.observe_image(pixels, 224.0, 0.0)
        started = time.perf_counter()
        metrics.render(openmetrics=openmetrics)
        times_ms.append((time.perf_counter() - started) * 1000)
    return median(times_ms)


if __name__ == "__main__":
    sys.exit(main())
