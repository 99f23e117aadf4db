"""Networks from elsewhere, by the real commands: served, they answer as they do in their own framework."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from model_export import data
from model_export.config import DataConfig
from model_export.data import ImageDataset
from model_export.evaluation import predict
from tests.e2e.road import ROOT, export, serve
from tests.e2e.strangers import SKLEARN_SCALE, Stranger

pytestmark = [pytest.mark.e2e, pytest.mark.timeout(600)]

PICTURES = 120  # of the held-back ones: one request each


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    return data.load_dataset(DataConfig())


def run(*words: str) -> str:
    done = subprocess.run(  # noqa: S603  # our own programs
        [sys.executable, "-m", *words], cwd=ROOT, capture_output=True, text=True, timeout=500, check=False
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.mark.parametrize(
    ("framework", "flags"),
    [
        ("keras", ["--precisions", "int8,fp16", "--max-accuracy-drop", "2"]),
        ("sklearn", ["--input", "1x8x8", "--std", str(1 / SKLEARN_SCALE)]),
    ],
)
def test_a_model_of_another_framework_answers_as_it_does_there(
    framework: str, flags: list[str], dataset: ImageDataset, tmp_path: Path
) -> None:
    run("tests.e2e.strangers", framework, str(tmp_path))
    expected = np.load(tmp_path / "answers.npy")[:PICTURES]
    repository = tmp_path / "models"
    adopted = ["model_export", "adopt", str(tmp_path / "model.onnx"), "--output", "probabilities"]
    run(*adopted, *flags, "--dataset", "digits", "--name", framework, "--repository", str(repository))
    with serve(repository) as served:
        probabilities = served.probabilities(dataset.test.images[:PICTURES], dataset.labels)
    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-5)
    assert np.mean(probabilities.argmax(axis=1) == dataset.test.targets[:PICTURES]) > 0.9
    names = {path.name for path in (repository / framework / "1").glob("*.onnx")}
    assert ({"model.int8.onnx", "model.fp16.onnx"} <= names) == (framework == "keras")


def test_a_forest_has_nothing_to_make_smaller_and_that_is_said(tmp_path: Path) -> None:
    run("tests.e2e.strangers", "sklearn", str(tmp_path))
    words = ["model_export", "adopt", str(tmp_path / "model.onnx"), "--output", "probabilities"]
    words += ["--input", "1x8x8", "--std", str(1 / SKLEARN_SCALE), "--dataset", "digits", "--name", "forest"]
    done = subprocess.run(  # noqa: S603  # our own program
        [sys.executable, "-m", *words, "--precisions", "int8", "--repository", str(tmp_path / "models")],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert done.returncode == 2
    assert "no convolution or matrix product with float32 weights" in done.stderr
    assert not (tmp_path / "models").exists()


def test_a_network_of_ones_own_answers_as_torch_says(dataset: ImageDataset, tmp_path: Path) -> None:
    flags = ("--model", "tests.e2e.strangers:stranger", "--epochs", "3", "--learning-rate", "0.01")
    exported = export(tmp_path, "stranger", *flags)
    network = Stranger()
    network.load_state_dict(load_file(exported.workdir / "calibrated.safetensors"))
    images = dataset.test.images[:PICTURES]
    logits = torch.from_numpy(predict(network.eval(), images, dataset.contract))
    with serve(exported.repository) as served:
        probabilities = served.probabilities(images, dataset.labels)
    np.testing.assert_allclose(probabilities, logits.double().softmax(dim=1).numpy(), rtol=0, atol=1e-5)
