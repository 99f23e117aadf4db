"""A long run of good requests: memory, threads and descriptors at its end are those of its beginning."""

from __future__ import annotations

import io
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from service.tuning.load import Generator, request_bytes
from service.tuning.process import Footprint, ServiceProcess, running
from tests.endurance import amount
from tests.model_files import TinyModel, write_model

pytestmark = [pytest.mark.endurance, pytest.mark.timeout(3600)]

REQUESTS = amount.requests()
PARTS = 10
CLIENTS = 16
SLICE_S = 1.0
# By the end of the first part everything has been touched that ever will be.
GROWTH = 1.02


def parts(service: ServiceProcess) -> Iterator[Footprint]:
    """What the service holds after each tenth of the requests, all of which are answered."""
    request = request_bytes(service.url, picture(), "image/png")
    with Generator(service.url, [request]) as generator:
        for _ in range(PARTS):
            answered = 0
            while answered < REQUESTS / PARTS:
                load = generator.closed(CLIENTS, SLICE_S)
                assert not load.failures
                answered += len(load.statuses)
            footprint = service.footprint()
            assert footprint is not None
            yield footprint


def picture() -> bytes:
    stream = io.BytesIO()
    Image.fromarray(TinyModel.make().image(0).squeeze()).save(stream, "PNG")
    return stream.getvalue()


@pytest.mark.parametrize("workers", [1, 2])
def test_nothing_grows(tmp_path: Path, workers: int, capsys: pytest.CaptureFixture[str]) -> None:
    write_model(tmp_path)
    started = time.monotonic()
    with running(["--repository", str(tmp_path), "--workers", str(workers)]) as service:
        held = list(parts(service))
    with capsys.disabled():
        mebibytes = ", ".join(f"{each.memory_bytes / 2**20:.1f}" for each in held)
        print(  # noqa: T201 - the figures are what this is for
            f"\n{REQUESTS:,} requests to {workers} worker(s) in {time.monotonic() - started:.0f} s: "
            f"resident MiB {mebibytes}; threads {sorted({each.threads for each in held})}, "
            f"descriptors {sorted({each.descriptors for each in held})}"
        )
    assert held[-1].memory_bytes < GROWTH * held[0].memory_bytes
    assert len({each.threads for each in held}) == 1
    assert len({each.descriptors for each in held}) == 1
