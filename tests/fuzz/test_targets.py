"""The fuzzer's targets hold for their own seeds, and a few of them get through."""

from __future__ import annotations

import importlib.util
import subprocess
import sys

import pytest

from tests.fuzz.targets import TARGETS


@pytest.mark.parametrize("name", TARGETS)
def test_a_target_takes_its_seeds_and_their_halves(name: str) -> None:
    target = TARGETS[name]
    for seed in target.seeds():
        for data in (seed, seed[: len(seed) // 2], seed[::-1]):
            target.run(data)


@pytest.mark.skipif(importlib.util.find_spec("atheris") is None, reason="needs atheris")
def test_a_short_search_ends_without_a_finding() -> None:
    program = [sys.executable, "-m", "tests.fuzz", "--seconds", "1", "form"]
    done = subprocess.run(program, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603 - ours
    assert done.returncode == 0, done.stderr
