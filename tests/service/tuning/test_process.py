"""A service process that is measured: where it runs, and where its clients do."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from service.server import most_workers
from service.tuning.process import CannotStart, running
from tests.model_files import write_model


@pytest.mark.e2e
@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system pins no process")
def test_only_the_service_is_pinned(tmp_path: Path) -> None:
    write_model(tmp_path)
    before = os.sched_getaffinity(0)
    cpu = min(before)
    with running(["--repository", str(tmp_path)], [cpu]) as service:
        assert os.sched_getaffinity(service.pids[0]) == {cpu}
        assert os.sched_getaffinity(0) == before
        footprint = service.footprint()
        assert footprint is not None
        assert footprint.memory_bytes > 10_000_000
        assert footprint.threads >= 1
        assert footprint.descriptors >= 3
        assert service.stages().workers == 1


@pytest.mark.e2e
def test_workers_are_counted_also_where_the_service_chose_them(tmp_path: Path) -> None:
    write_model(tmp_path)
    with running(["--repository", str(tmp_path)]) as service:
        assert service.stages().workers == most_workers()


@pytest.mark.e2e
def test_a_service_that_does_not_start_says_its_last_words(tmp_path: Path) -> None:
    flags = ["--repository", str(tmp_path / "none")]
    with pytest.raises(CannotStart, match="no model repository at"), running(flags):
        pass
