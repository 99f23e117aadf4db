"""What the user asked for: one frozen record a stage, filled from the command line or by hand.

Nothing here reads files or imports torch; values are checked where they are cheap to check, so a
wrong flag is refused before any work is done.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from model_export.errors import InvalidConfig

DatasetName = Literal["digits", "mnist", "cifar10", "imagefolder"]
Normalization = Literal["article", "planned"]


@dataclass(frozen=True, slots=True)
class DataConfig:
    """Which pictures.

    Attributes:
        dataset: The loader.
        data_dir: Folder (or, for ``imagefolder`` and ``cifar10``, also a tar file) with the data; None:
            the loader's own source (``digits`` needs none, ``mnist`` and ``cifar10`` download).
        limit: At most so many training instances (None: all); for trying things.
        seed: Of the split into training and held-back instances, where the data set has none of its own.
        input: Channels, height, width; None: the data set's own.
        resize: As in the model file's contract.
        resize_to: Shorter side before the centre crop, for ``shorter_side``.
        interpolation: As in the model file's contract.
        channels: Colour order; None: the data set's own.
        mean: Of pixels in 0…1, one value a channel; None: measured on the training split.
        std: Likewise.
    """

    dataset: DatasetName = "digits"
    data_dir: Path | None = None
    limit: int | None = None
    seed: int = 0
    input: tuple[int, int, int] | None = None
    resize: Literal["stretch", "shorter_side", "letterbox"] = "stretch"
    resize_to: int | None = None
    interpolation: Literal["nearest", "bilinear", "bicubic", "lanczos"] = "bilinear"
    channels: Literal["rgb", "bgr", "gray"] | None = None
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Which network: one of ours by name, or a callable returning an ``nn.Module``.

    Attributes:
        architecture: Name in `model_export.architectures`; used where ``model`` is None.
        model: ``package.module:factory``.
        weights: State dict file (safetensors or torch); None: freshly initialised.
        labels: File with one label a line; None: the data set's.
    """

    architecture: str = "article_cnn"
    model: str | None = None
    weights: Path | None = None
    labels: Path | None = None


@dataclass(frozen=True, slots=True)
class TrainConfig:
    """How to train. The defaults are the article's: Adam, cross-entropy, 10 epochs."""

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    seed: int = 0
    normalization: Normalization = "article"

    def __post_init__(self) -> None:
        for name in ("epochs", "batch_size"):
            if getattr(self, name) < 1:
                raise InvalidConfig(f"--{name.replace('_', '-')} {getattr(self, name)}: must be at least 1")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A whole run: train → calibrate → cost → fold → export → verify → publish."""

    name: str
    repository: Path = Path("models")
    objective: Literal["fewest", "speed"] = "speed"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
