"""Plan and calibration as stages: what they leave in the work folder, and what later stages make of it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from model_export.config import DataConfig, RunConfig, TrainConfig
from model_export.data import encode_png
from model_export.errors import DataError
from model_export.pipeline import Run, WorkDir

pytestmark = pytest.mark.usefixtures("one_thread")

CONFIG = RunConfig(name="planned", data=DataConfig(limit=200), train=TrainConfig(epochs=1))


def run_of(folder: Path, **changes: object) -> Run:
    config = replace(CONFIG, repository=folder / "models", **changes)  # type: ignore[arg-type]  # test data
    return Run(config, WorkDir(folder / "run"))


def test_later_stages_rebuild_the_planned_network(tmp_path: Path) -> None:
    train = replace(CONFIG.train, normalization="planned", batch_size=8)
    run = run_of(tmp_path, train=train)
    assert run.plan().placements["dense1"] == "none"
    run.train()
    later = run_of(tmp_path, train=train).fold()
    assert [fate.name for fate in later.fates] == ["norm1", "norm2"]


def test_calibration_repairs_the_averages_of_a_short_training(tmp_path: Path) -> None:
    run = run_of(tmp_path, train=replace(CONFIG.train, epochs=6))
    run.train()
    outcome = run.calibrate()
    assert (outcome.source, outcome.instances) == ("digits, validation and train", 90 + 200)
    assert outcome.judged == 89
    assert outcome.after > outcome.before + 0.1
    again = run.calibrate()
    assert again.before == outcome.before, "it starts from what training left"


def test_calibration_on_pictures_from_elsewhere(tmp_path: Path) -> None:
    run = run_of(tmp_path, calibrate_on=tmp_path / "elsewhere")
    run.train()
    (tmp_path / "elsewhere" / "deeper").mkdir(parents=True)
    with pytest.raises(DataError, match="elsewhere: no pictures"):
        run.calibrate()
    for number, image in enumerate(run.dataset.test.images[:40]):
        (tmp_path / "elsewhere" / "deeper" / f"{number}.png").write_bytes(encode_png(image))
    outcome = run.calibrate()
    assert (outcome.source, outcome.instances) == (str(tmp_path / "elsewhere"), 40)
    assert run.workdir.has("calibrated.safetensors"), "whatever they do to the validation split"
