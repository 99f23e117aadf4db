"""``make bench-profile``: where a request's time goes, on the clock and on the CPU.

::

    one client        stages on the clock, as Server-Timing and the metrics say
    many clients      the same, and CPU µs a request by what they are spent on: py-spy samples the process a
                      few hundred times a second, and each sample of a running thread counts for the function
                      group of its innermost Python frame

A native call counts for the Python function that made it: a write for the connection, a batch for the engine.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from benchmarks import model
from benchmarks.numbers import positive
from benchmarks.page import in_a_folder
from benchmarks.pictures import describe
from service.errors import FoldserveError
from service.tuning import subject
from service.tuning.load import Generator, request_bytes
from service.tuning.process import ServiceProcess, running

_WARM_UP_S: Final = 2.0
_SAMPLES_PER_S: Final = 400
_STAGES: Final = ("receive", "decode", "queue", "inference", "serialize")
# The innermost frame whose file has one of these in its path says the group; first come, first served.
GROUPS: Final[Mapping[str, tuple[str, ...]]] = {
    "engine: run and batch": ("service/engine", "service/batcher/handover", "onnxruntime"),
    "decoding": ("service/images", "PIL/"),
    "batcher": ("service/batcher",),
    "metrics and log": ("service/metrics", "service/app/journal", "service/logs"),
    "connection: read, parse, write": ("service/server", "uvicorn/", "httptools"),
    "route: headers, body, JSON": ("service/api", "service/app"),
    "event loop": ("asyncio/", "uvloop"),
}
_OTHER: Final = "everything else"


@dataclass(frozen=True, slots=True)
class Profile:
    """One load on the service.

    Attributes:
        clients: Requests on their way at a time.
        per_s: Answers a second.
        latency_ms: The mean.
        stages_ms: Mean milliseconds in each stage.
        batch_size: Images in a batch, on average.
        cpu_us: CPU microseconds a request.
        shares: Of the CPU time, by function group; none where nobody sampled.
    """

    clients: int
    per_s: float
    latency_ms: float
    stages_ms: Mapping[str, float]
    batch_size: float
    cpu_us: float
    shares: Mapping[str, float]


def group_of(stack: str) -> str:
    """The group of a sampled stack: frames as ``name (file)`` from the outermost on, with ``;`` between."""
    for frame in reversed(stack.split(";")):
        for group, places in GROUPS.items():
            if any(place in frame for place in places):
                return group
    return _OTHER


def shares(folded: str) -> dict[str, float]:
    """Shares of the samples by group, the largest first.

    Args:
        folded: A line for each stack: its frames, a blank, how often it was seen.
    """
    seen: Counter[str] = Counter()
    for line in folded.splitlines():
        stack, _, times = line.rpartition(" ")
        seen[group_of(stack)] += int(times)
    return {group: times / seen.total() for group, times in seen.most_common()}


class NotMeasurable(Exception):
    """This machine does not say what a profile is made of."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Measures and prints; writes the page where one is asked for.

    Returns:
        0; 1 when nothing could be measured.
    """
    options = _parser().parse_args(arguments)
    try:
        text = _profile(options)
    except (FoldserveError, NotMeasurable) as error:
        print(f"bench-profile: {error}", file=sys.stderr)
        return 1
    print(text)
    if options.write is not None:
        options.write.write_text(text, encoding="utf-8")
    return 0


def _profile(options: argparse.Namespace) -> str:
    """The page."""
    found, images = model.find(options)
    _require_sampler()
    about = f"Model `{found.name}`, {describe(images)}."
    flags = ["--repository", str(options.repository), "--models", found.name, "--workers", "1"]
    requests = [request_bytes("http://127.0.0.1", image, subject.MEDIA_TYPE) for image in images]
    with running(flags) as service, Generator(service.url, requests) as generator:
        generator.closed(options.clients, _WARM_UP_S)
        profiles = [
            measure(service, generator, clients, options.seconds, is_sampled=False)
            for clients in (1, options.clients)
        ]
        sampled = measure(service, generator, options.clients, options.seconds, is_sampled=True)
    return page(profiles, sampled.shares, about)


def measure(
    service: ServiceProcess, generator: Generator, clients: int, seconds: float, *, is_sampled: bool
) -> Profile:
    """One closed loop.

    Raises:
        NotMeasurable: Nothing says what the process costs, or the sampler cannot look into it.
    """
    stages, cpu = service.stages(), service.cpu_time()
    if cpu is None:
        raise NotMeasurable("this system does not say what a process costs")
    with tempfile.TemporaryDirectory() as folder:
        raw = Path(folder) / "stacks"
        sampler = _sampler(service.pids[0], seconds, raw) if is_sampled else None
        load = generator.closed(clients, seconds)
        folded = ""
        if sampler is not None:
            _, said = sampler.communicate()
            if sampler.returncode:
                raise NotMeasurable(f"py-spy failed: {said.strip()}")
            folded = raw.read_text(encoding="utf-8")
    used, counted = service.cpu_time(), service.stages().since(stages)
    assert used is not None  # noqa: S101 - it said so a moment ago
    latencies = load.latencies_ms()
    return Profile(
        clients=clients,
        per_s=load.answered_per_s,
        latency_ms=sum(latencies) / len(latencies),
        stages_ms=counted.mean_ms,
        batch_size=counted.batch_size,
        cpu_us=used.since(cpu).total_s * 1e6 / len(latencies),
        shares=shares(folded),
    )


def page(profiles: Sequence[Profile], groups: Mapping[str, float], about: str) -> str:
    """Both tables, as Markdown; the groups are shares of the last profile's CPU time.

    Args:
        about: Model and pictures, in a sentence.
    """
    heads = "".join(f" {each.clients} client{'s' if each.clients > 1 else ''} |" for each in profiles)
    lines = [
        "# Where a request's time goes",
        "",
        f"Made by `make bench-profile`, one worker, its clients on the same machine. {about}",
        "",
        f"| milliseconds on the clock |{heads}",
        "| --- |" + " --- |" * len(profiles),
    ]
    rows = {
        **{stage: [f"{each.stages_ms.get(stage, 0):.3f}" for each in profiles] for stage in _STAGES},
        "whole request, as its client sees it": [f"{each.latency_ms:.3f}" for each in profiles],
        "images a batch": [f"{each.batch_size:.1f}" for each in profiles],
        "answers a second": [f"{each.per_s:,.0f}" for each in profiles],
        "CPU µs a request": [f"{each.cpu_us:.0f}" for each in profiles],
    }
    lines += [f"| {name} |" + "".join(f" {value} |" for value in values) for name, values in rows.items()]
    cpu_us, clients = profiles[-1].cpu_us, profiles[-1].clients
    lines += ["", f"| with {clients} clients | CPU µs a request | share |", "| --- | --- | --- |"]
    lines += [f"| {group} | {share * cpu_us:.0f} | {share:.0%} |" for group, share in groups.items()]
    return "\n".join([*lines, ""])


def _require_sampler() -> Path:
    """The path of py-spy.

    Raises:
        NotMeasurable: It is not there.
    """
    program = Path(sys.executable).with_name("py-spy")
    if not program.exists():
        raise NotMeasurable("py-spy is not installed; `make bench-profile` installs it")
    return program


def _sampler(pid: int, seconds: float, raw: Path) -> subprocess.Popen[str]:
    program = [str(_require_sampler()), "record", "--pid", str(pid), "--format", "raw"]
    program += ["--duration", f"{seconds:.0f}", "--rate", str(_SAMPLES_PER_S), "--output", str(raw)]
    return subprocess.Popen([*program, "--nolineno", "--full-filenames"], stderr=subprocess.PIPE, text=True)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m benchmarks.request_profile",
        description="Measure where a request's time goes, on the clock and on the CPU, with one client and "
        "with many.",
    )
    model.add_flags(parser)
    parser.add_argument(
        "--clients",
        type=positive(int),
        default=32,
        help="requests on their way at a time, where there are many (default: %(default)s)",
    )
    parser.add_argument(
        "--seconds", type=positive(int), default=6, help="of each of three loads (default: %(default)s)"
    )
    parser.add_argument(
        "--write", type=in_a_folder, metavar="FILE", help="where the page goes too (default: only printed)"
    )
    return parser


if __name__ == "__main__":
    sys.exit(main())
