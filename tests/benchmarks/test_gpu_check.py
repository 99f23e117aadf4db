"""The GPU check proves itself on the CPU, the one provider that every machine has."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest

from benchmarks import gpu_check
from service.engine import EngineOptions, Provider
from service.engine.providers import NAMES
from tests.model_files import write_model

CPU = EngineOptions(provider=Provider.CPU)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    write_model(tmp_path)
    (path,) = tmp_path.glob("*/*/model.onnx")
    return path


def test_without_a_driver_there_is_nothing_to_check(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    monkeypatch.setattr(gpu_check, "has_driver", lambda: False)
    assert gpu_check.main(["--result", str(tmp_path / "result.json")]) == 0
    assert "no NVIDIA driver" in capsys.readouterr().out
    assert not (tmp_path / "result.json").exists()


@pytest.mark.parametrize("folder", [".", "nowhere"])
def test_that_nothing_was_checked_is_an_error(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, folder: str
) -> None:
    monkeypatch.setattr(gpu_check, "has_driver", lambda: True)
    repository, result = tmp_path / folder, tmp_path / "result.json"
    assert gpu_check.main(["--repository", str(repository), "--result", str(result)]) == 1
    assert capsys.readouterr().err == f"gpu-check: no model in '{repository}'; `make model` makes one\n"
    assert not result.exists()


def test_a_driver_without_cuda_is_an_error_with_its_reason(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], model: Path
) -> None:
    monkeypatch.setattr(gpu_check, "has_driver", lambda: True)
    monkeypatch.setattr("service.engine.sessions.missing_part", lambda kind: "cuDNN is missing")
    assert gpu_check.main(["--repository", str(model.parents[2])]) == 1
    assert "cuDNN is missing" in capsys.readouterr().err


@pytest.mark.e2e
def test_a_provider_that_agrees_is_measured_and_written_down(
    model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    check = gpu_check.check(model, CPU)
    served = gpu_check.serve(model.parents[2], "tiny", "cpu", 0.2)
    assert check.error == 0
    assert set(check.operators) == {NAMES["cpu"]}
    assert all(rate > 0 for rate in check.per_second["cpu"].values())
    gpu_check.write([check], [served], tmp_path / "new" / "result.json")
    document = json.loads((tmp_path / "new" / "result.json").read_text())
    assert document["models"][0]["model"] == str(model)
    assert document["served"][0]["per_second"]["64"] > 0
    printed = capsys.readouterr().out
    assert "ran on" in printed
    assert "tiny served on cpu: 1 clients" in printed


def test_what_is_not_there_is_named_and_left_out(
    monkeypatch: pytest.MonkeyPatch, model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("service.engine.sessions.missing_part", lambda kind: f"{kind} is missing")
    assert gpu_check.variants(model, tmp_path) == [EngineOptions(provider=Provider.CUDA)]
    said = capsys.readouterr().err
    assert "without CUDA graphs" in said
    assert "tensorrt is missing" in said


def test_operators_that_ran_elsewhere_are_noticed(monkeypatch: pytest.MonkeyPatch, model: Path) -> None:
    monkeypatch.setattr(gpu_check, "operators_by_provider", lambda *_: Counter({NAMES["cuda"]: 3}))
    with pytest.raises(gpu_check.Disagreement, match="no operator ran on it"):
        gpu_check.check(model, CPU)


@pytest.mark.parametrize("error", [1.0, float("nan")])
def test_other_logits_are_noticed(monkeypatch: pytest.MonkeyPatch, model: Path, error: float) -> None:
    monkeypatch.setattr(gpu_check, "disagreement", lambda *_: error)
    with pytest.raises(gpu_check.Disagreement, match="logits differ"):
        gpu_check.check(model, CPU)


def test_disagreement_is_relative_to_the_largest_logit() -> None:
    reference = np.array([[1.0, -4.0]], np.float32)
    assert gpu_check.disagreement(reference + np.array([[0.0, 0.1]], np.float32), reference) == pytest.approx(
        0.025
    )
