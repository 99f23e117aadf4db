"""A model file that knows its training, and clients that send something else."""

from __future__ import annotations

from pathlib import Path

import pytest

from service.metrics import drift
from tests.model_files import TinyModel, png, write_model
from tests.service.api.conftest import Start
from tests.service.test_drift import MUCH, World


@pytest.mark.usefixtures("whenever_decoded")
async def test_a_service_that_meets_other_images_shows_it(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(drift, "SAMPLE_INTERVAL_S", 0.0)
    reference = World(1, 3).reference()
    write_model(tmp_path, reference=reference)
    dark = png(TinyModel.make().image(1) // 8)
    files = [(f"image{number}", ("x.png", dark, "image/png")) for number in range(50)]
    async with start(repository=tmp_path, default_model="tiny") as running:
        for _ in range(drift.MIN_SAMPLES // 50):
            (await running.client.post("/predict", files=files)).raise_for_status()
            await running.client.get("/metrics")
        for feature in ("mean", "contrast", "size", "label"):
            found = running.metric("foldserve_drift_psi", model="tiny", version="1", feature=feature)
            assert found > MUCH, feature
