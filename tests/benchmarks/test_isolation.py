"""A comparison outlives what it compares."""

from __future__ import annotations

import os
import threading

import pytest

from benchmarks.folding.isolation import isolated

PATIENCE_S = 60.0


def work(job: str) -> str:
    """What a tool may do, by name."""
    if job == "crash":
        os.abort()
    if job == "raise":
        raise RuntimeError("nobody catches this")
    if job == "hang":
        threading.Event().wait()
    return job.upper()


@pytest.mark.parametrize("fault", ["crash", "raise"])
def test_what_brings_its_process_down_takes_nothing_with_it(
    fault: str, capfd: pytest.CaptureFixture[str]
) -> None:
    assert list(isolated(work, ["a", fault, "b", fault], PATIENCE_S)) == ["A", None, "B", None]
    assert ("nobody catches this" in capfd.readouterr().err) == (fault == "raise")


def test_what_hangs_is_given_up() -> None:
    assert list(isolated(work, ["hang"], patience_s=0.5)) == [None]
