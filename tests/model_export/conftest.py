"""What the tests of an export share: the digits, and a network with running statistics worth folding."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import nn

from model_export import architectures, data
from model_export.config import DataConfig, RunConfig, TrainConfig
from model_export.data import ImageDataset
from model_export.layers import PixelNormalization
from model_export.pipeline import Run, WorkDir


@pytest.fixture(scope="session")
def digits() -> ImageDataset:
    """scikit-learn's digits, as the default run has them."""
    return data.load_dataset(DataConfig())


@pytest.fixture(scope="session")
def article(digits: ImageDataset) -> nn.Module:
    """The article's network, untrained, evaluating, its statistics estimated and its γ of both signs."""
    torch.manual_seed(0)
    network = architectures.build("article_cnn", input_shape=digits.input_shape, classes=10)
    for norm in (part for part in network.modules() if isinstance(part, nn.modules.batchnorm._BatchNorm)):
        nn.init.normal_(norm.weight)
        nn.init.normal_(norm.bias)
        norm.momentum = None  # a plain average over the batches below
    normalise = PixelNormalization(digits.contract.mean, digits.contract.std)
    with torch.no_grad():
        for batch in torch.split(torch.from_numpy(digits.train.images), 256):
            network(normalise(batch))
    return network.eval()


@pytest.fixture(scope="session")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Run:
    """A whole default run of two epochs, published; only read from it."""
    folder = tmp_path_factory.mktemp("finished")
    config = RunConfig(name="digits", repository=folder / "models", train=TrainConfig(epochs=2))
    run = Run(config, WorkDir(folder / "run"))
    run.all()
    return run


@pytest.fixture
def version(finished: Run) -> Path:
    """The folder that the finished run published."""
    return finished.config.repository / "digits" / "1"
