"""``python -m tests.fuzz [--seconds 12] [TARGET …]``: each target for so long; exit status 1 for a finding.

What breaks a target is kept in ``reports/fuzz/``; give it to the target again to see it break.
"""

from __future__ import annotations

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.fuzz.targets import TARGETS

REPORTS = Path("reports") / "fuzz"
# libFuzzer's: an input that takes longer, or needs more, is a finding too.
TIMEOUT_S, MEMORY_MIB, LONGEST_BYTES = 10, 2048, 20_000


def main(arguments: Sequence[str]) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("targets", nargs="*", metavar="TARGET", help=", ".join(TARGETS))
    parser.add_argument("--seconds", type=int, default=12, help="for each target")
    chosen = parser.parse_args(arguments)
    if unknown := sorted(set(chosen.targets) - set(TARGETS)):
        parser.error(f"no target '{unknown[0]}'; there are {', '.join(TARGETS)}")
    return max(_search(name, chosen.seconds) for name in chosen.targets or TARGETS)


def _search(name: str, seconds: int) -> int:
    REPORTS.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="foldserve-fuzz-") as folder:
        for number, seed in enumerate(TARGETS[name].seeds()):
            (Path(folder) / str(number)).write_bytes(seed)
        limits = (
            f"-max_total_time={seconds}",
            f"-timeout={TIMEOUT_S}",
            f"-rss_limit_mb={MEMORY_MIB}",
            f"-max_len={LONGEST_BYTES}",
            f"-artifact_prefix={REPORTS / name}-",
            "-verbosity=0",
            "-print_final_stats=1",
        )
        print(f"{name}: {number + 1} seeds, {seconds} s", flush=True)  # noqa: T201 - progress
        program = [sys.executable, "-m", "tests.fuzz.search", name, *limits, folder]
        return min(1, subprocess.run(program, check=False).returncode)  # noqa: S603 - our own program


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
