"""A fold needs little more than its result: ResNet-18, in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads Linux's own account of memory")
def test_a_fold_takes_less_than_three_times_the_model_s_memory() -> None:
    command = [sys.executable, "-m", "benchmarks.folding.resources", "resnet18"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=150, check=True)  # noqa: S603
    found = json.loads(done.stdout)
    assert found["model_bytes"] > 40e6
    # The model itself included, as whoever sizes a machine must: two for the fold and one for the model.
    assert found["fold_bytes"] + found["model_bytes"] < 3 * found["model_bytes"]
