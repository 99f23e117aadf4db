"""Classifiers of the digits made elsewhere: ``python -m tests.e2e.strangers keras|sklearn FOLDER``.

Each trains, says what it thinks of the held-back digits (``answers.npy``, float64 [N, K]), and writes itself
as ``model.onnx`` with its own framework's exporter. In a process of their own: a framework warns as it likes.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from model_export import data
from model_export.config import DataConfig
from model_export.data import ImageDataset

SKLEARN_SCALE = 16.0  # scikit-learn's own digits are 0…16


class Stranger(nn.Module):
    """A network that no room of this project knows."""

    def __init__(self) -> None:
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(1, 12, 3, padding=1, bias=False), nn.BatchNorm2d(12), nn.SiLU(), nn.MaxPool2d(2)
        )
        self.head = nn.Linear(12 * 16, 10)

    def forward(self, x: Tensor) -> Tensor:
        """Logits [N, 10]."""
        logits: Tensor = self.head(self.features(x).flatten(1))
        return logits


def stranger() -> nn.Module:
    """For ``--model tests.e2e.strangers:stranger``."""
    return Stranger()


def with_keras(dataset: ImageDataset, file: Path) -> NDArray[np.float64]:
    """A Keras network on the torch backend, channels last, ending in a softmax."""
    os.environ["KERAS_BACKEND"] = "torch"
    import keras  # here: the backend has to be chosen before

    keras.utils.set_random_seed(0)
    network = keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            keras.layers.Conv2D(16, 3, padding="same", use_bias=False),
            keras.layers.BatchNormalization(momentum=0.9),
            keras.layers.ReLU(),
            keras.layers.MaxPooling2D(),
            keras.layers.Flatten(),
            keras.layers.Dense(10, activation="softmax"),
        ]
    )
    network.compile(optimizer=keras.optimizers.Adam(0.01), loss="sparse_categorical_crossentropy")
    network.fit(dataset.train.images / 255.0, dataset.train.targets, batch_size=64, epochs=4, verbose=0)
    network.export(file, format="onnx", verbose=False)
    return np.asarray(network.predict(dataset.test.images / 255.0, verbose=0), dtype=np.float64)


def with_sklearn(dataset: ImageDataset, file: Path) -> NDArray[np.float64]:
    """A forest of trees on flat pictures; its converter writes one map from label to probability each."""
    from skl2onnx import to_onnx  # here: not every stranger needs it
    from sklearn.ensemble import RandomForestClassifier

    def flat(images: NDArray[np.uint8]) -> NDArray[np.float32]:
        return (images.reshape(len(images), -1) / 255 * SKLEARN_SCALE).astype(np.float32)

    forest = RandomForestClassifier(n_estimators=30, random_state=0)
    forest.fit(flat(dataset.train.images), dataset.train.targets)
    file.write_bytes(to_onnx(forest, flat(dataset.train.images[:1])).SerializeToString())
    return np.asarray(forest.predict_proba(flat(dataset.test.images)), dtype=np.float64)


MAKERS: Mapping[str, Callable[[ImageDataset, Path], NDArray[np.float64]]] = MappingProxyType(
    {"keras": with_keras, "sklearn": with_sklearn}
)


def main(framework: str, folder: Path) -> None:
    """Leaves ``model.onnx`` and ``answers.npy`` in ``folder``."""
    torch.set_num_threads(1)
    answers = MAKERS[framework](data.load_dataset(DataConfig()), folder / "model.onnx")
    np.save(folder / "answers.npy", answers)


if __name__ == "__main__":
    main(sys.argv[1], Path(sys.argv[2]))
