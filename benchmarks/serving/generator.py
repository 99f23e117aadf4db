"""wrk, the load generator: light enough to share two cores with what it measures."""

from __future__ import annotations

import json
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from loadtest.bodies import Body

SCRIPT = Path(__file__).with_name("post.lua")
TIMEOUT = "30s"


class GeneratorUnavailable(Exception):
    """wrk is not installed."""


@dataclass(frozen=True, slots=True)
class Load:
    """What wrk saw. Latencies in milliseconds."""

    requests_per_s: float
    p50_ms: float
    p99_ms: float
    max_ms: float
    requests: int
    failures: int


def require() -> str:
    """The path of wrk.

    Raises:
        GeneratorUnavailable: It is not there.
    """
    program = shutil.which("wrk")
    if program is None:
        raise GeneratorUnavailable("the benchmark needs wrk: apt-get install wrk")
    return program


def write_bodies(bodies: Sequence[Body], path: Path) -> Path:
    """The bodies as `post.lua` reads them."""
    path.write_bytes(b"".join(b"%d\n%s\n" % (len(body.content), body.content) for body in bodies))
    return path


def drive(url: str, path: str, content_type: str, bodies: Path, concurrency: int, seconds: float) -> Load:
    """Keeps ``concurrency`` requests on their way for some seconds."""
    command = [require(), "-t1", f"-c{concurrency}", f"-d{max(1, round(seconds))}s", "--timeout", TIMEOUT]
    command += ["--script", str(SCRIPT), url, "--", path, content_type, str(bodies)]
    printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return parse(printed)


def parse(printed: str) -> Load:
    """What the last line of the script says."""
    seen = json.loads(printed.splitlines()[-1])
    failures = seen["not_200"] + seen["broken"]
    return Load(
        requests_per_s=(seen["requests"] - seen["not_200"]) / (seen["duration_us"] / 1e6),
        p50_ms=seen["p50_us"] / 1000,
        p99_ms=seen["p99_us"] / 1000,
        max_ms=seen["max_us"] / 1000,
        requests=seen["requests"],
        failures=failures,
    )
