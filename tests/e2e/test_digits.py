"""The default model, from scikit-learn's digits to answers over HTTP."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
import torch
from prometheus_client.parser import text_string_to_metric_families
from safetensors.torch import load_file

from model_export import architectures, data
from model_export.config import DataConfig
from model_export.data import ImageDataset
from model_export.evaluation import predict
from service.server import most_workers
from tests.e2e.road import Exported, Served, png

# The first test waits for a training, which takes its time on a busy machine.
pytestmark = [pytest.mark.e2e, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def dataset() -> ImageDataset:
    return data.load_dataset(DataConfig())


def test_held_back_digits_are_read_right_and_as_torch_reads_them(
    exported: Exported, served: Served, dataset: ImageDataset
) -> None:
    held_back = dataset.test
    network = architectures.build("article_cnn", input_shape=dataset.input_shape, classes=10)
    network.load_state_dict(load_file(exported.workdir / "calibrated.safetensors"))
    logits = torch.from_numpy(predict(network.eval(), held_back.images, dataset.contract))
    expected = logits.double().softmax(dim=1).numpy()

    probabilities = served.probabilities(held_back.images, dataset.labels)

    np.testing.assert_allclose(probabilities, expected, rtol=0, atol=1e-5)
    np.testing.assert_array_equal(probabilities.argmax(axis=1), expected.argmax(axis=1))
    assert np.mean(probabilities.argmax(axis=1) == held_back.targets) >= 0.95


def test_the_fewest_affine_maps_are_none(exported: Exported) -> None:
    """The article's network: all three BatchNorms go, exactly."""
    command = [sys.executable, "-m", "model_export", "fold", "--workdir", str(exported.workdir)]
    done = subprocess.run(  # noqa: S603  # our own program
        [*command, "--objective", "fewest", "--json"], capture_output=True, text=True, timeout=120, check=True
    )
    outcome = json.loads(done.stdout)
    assert [fate["outcome"] for fate in outcome["fates"]] == ["folded"] * 3
    assert outcome["affine_maps_left"] == 0
    assert outcome["error"] <= 1e-12


def test_the_three_forms_answer_alike(served: Served, dataset: ImageDataset) -> None:
    pictures = [png(image) for image in dataset.test.images[:3]]
    encoded = [base64.b64encode(picture).decode() for picture in pictures]
    several = served.client.post("/predict", json={"images": encoded})
    files = [("image", (f"{n}.png", picture, "image/png")) for n, picture in enumerate(pictures)]
    multipart = served.client.post("/predict", files=files)
    raw = [
        served.client.post("/predict", content=picture, headers={"Content-Type": "image/png"})
        for picture in pictures
    ]
    answers = [answer.json()["predictions"] for answer in (several, multipart)]
    answers.append([answer.json()["predictions"][0] for answer in raw])
    labels = [[prediction["label"] for prediction in answer] for answer in answers]
    scores = [[prediction["probability"] for prediction in answer] for answer in answers]
    assert labels[0] == labels[1] == labels[2]
    # The last bits may depend on the size of the batch.
    np.testing.assert_allclose(scores[1:], [scores[0]] * 2, rtol=0, atol=1e-6)


def test_the_process_stays_small_and_without_torch(served: Served, dataset: ImageDataset) -> None:
    served.probabilities(dataset.test.images[:20], dataset.labels)
    processes = [served.process, *served.process.children(recursive=True)]
    # 300 MiB for all processes together where two CPUs make two workers.
    most = (80 + 110 * most_workers()) * 2**20
    assert sum(process.memory_info().rss for process in processes) < most
    if psutil.LINUX:
        maps = [Path(f"/proc/{process.pid}/maps").read_text() for process in processes]
        assert any("onnxruntime" in text for text in maps)
        assert not any("torch" in text for text in maps)


def test_the_metrics_count_what_was_answered(served: Served, dataset: ImageDataset) -> None:
    outcome = {"model": "digits", "version": "1", "outcome": "predicted"}

    def answered() -> float:
        families = text_string_to_metric_families(served.client.get("/metrics").text)
        samples = [sample for family in families for sample in family.samples]
        return sum(s.value for s in samples if (s.name, s.labels) == ("foldserve_images_total", outcome))

    before = answered()
    served.probabilities(dataset.test.images[:7], dataset.labels)
    assert answered() == before + 7
