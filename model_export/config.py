"""What the user asked for: one frozen record a stage, filled from the command line or by hand.

Nothing here reads files or imports torch; values are checked where they are cheap to check, so a
wrong flag is refused before any work is done.
"""

from __future__ import annotations

import math
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from model_export.errors import InvalidConfig
from service.artifact import MODEL_NAME_PATTERN

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

    def __post_init__(self) -> None:
        if self.dataset == "digits" and self.data_dir is not None:
            raise InvalidConfig(
                f"--data-dir {self.data_dir}: for the digits there is none; say which --dataset"
            )
        if self.limit is not None and self.limit < 1:
            raise InvalidConfig(f"--limit {self.limit}: must be at least 1")
        if not all(map(math.isfinite, self.mean or ())):
            raise InvalidConfig(f"--mean {_listed(self.mean)}: each must be a finite number")
        if not all(0 < value < math.inf for value in self.std or ()):
            raise InvalidConfig(f"--std {_listed(self.std)}: each must be a finite number above zero")


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
    """How to train. The defaults are the article's: Adam, cross-entropy, 10 epochs.

    Attributes:
        epochs: Passes over the training split; 0: the weights stay as they came.
        batch_size: Instances a step.
        learning_rate: The highest one.
        weight_decay: Of every parameter; part of the gradient, as in Adam's and SGD's own papers.
        seed: Of the initial weights, the order of the instances and the augmentation.
        normalization: The article's BatchNorm settings, or planned ones.
        optimizer: ``sgd`` has Nesterov momentum 0.9.
        schedule: ``cosine`` falls to zero by the last step; ``constant`` does not fall.
        warmup_epochs: The learning rate rises from zero over so many epochs; may be a fraction.
        augmentation: ``shift`` moves each picture by up to an eighth of its size, ``shift_flip`` also
            mirrors half of them.
        patience: Stop after so many epochs without a lower validation loss, and keep the weights of the
            best; None: train to the end and keep the last.
        fold_aware_epochs: So many of the last epochs train the network as it will be served: every
            BatchNorm is the constant affine map that folding takes away, its statistics fixed.
        label_smoothing: Share of the target that is spread over all labels.
        class_weights: ``balanced`` weighs the classes as if there were equally many instances of each.
        device: ``auto`` takes CUDA where it works.
        mixed_precision: Half precision where it is safe; CUDA only.
    """

    epochs: int = 10
    batch_size: int = 64
    learning_rate: float = 1e-3
    weight_decay: float = 0.0
    seed: int = 0
    normalization: Normalization = "article"
    optimizer: Literal["adam", "sgd"] = "adam"
    schedule: Literal["constant", "cosine"] = "constant"
    warmup_epochs: float = 0.0
    augmentation: Literal["none", "shift", "shift_flip"] = "none"
    patience: int | None = None
    fold_aware_epochs: int = 0
    label_smoothing: float = 0.0
    class_weights: Literal["none", "balanced"] = "none"
    device: Literal["auto", "cpu", "cuda"] = "auto"
    mixed_precision: bool = False

    def __post_init__(self) -> None:
        for name in ("batch_size", "patience"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise InvalidConfig(f"{_flag(name)} {value}: must be at least 1")
        if not 0 <= self.seed < 2**63:  # what every generator that is seeded with it takes
            raise InvalidConfig(f"--seed {self.seed}: must be at least 0 and less than 2^63")
        for name in ("epochs", "weight_decay", "warmup_epochs"):
            value = getattr(self, name)
            if not 0 <= value < math.inf:
                raise InvalidConfig(f"{_flag(name)} {value}: must be zero or more")
        if not 0 <= self.fold_aware_epochs <= self.epochs:
            raise InvalidConfig(
                f"--fold-aware-epochs {self.fold_aware_epochs}: must be within the {self.epochs} epochs"
            )
        if not 0 < self.learning_rate < math.inf:
            raise InvalidConfig(f"--learning-rate {self.learning_rate}: must be more than zero")
        if not 0 <= self.label_smoothing < 1:
            raise InvalidConfig(f"--label-smoothing {self.label_smoothing}: must be in [0, 1)")

    def steps(self, instances: int) -> int:
        """Into how many batches of nearly equal size an epoch is cut.

        None of them has one instance alone, unless that was asked for: it would have no batch statistics.

        Args:
            instances: Of the training split, at least 1.
        """
        steps = math.ceil(instances / self.batch_size)
        return steps if self.batch_size == 1 else max(1, min(steps, instances // 2))


def _listed(numbers: tuple[float, ...] | None) -> str:
    return ",".join(f"{number:g}" for number in numbers or ())


def _flag(name: str) -> str:
    return f"--{name.replace('_', '-')}"


@dataclass(frozen=True, slots=True)
class QuantizeConfig:
    """Which other precisions to make beside fp32, and what they may cost.

    Attributes:
        precisions: None: fp32 alone.
        max_accuracy_drop: Points of accuracy; more, and nothing is published.
        keep_first: The first layer with weights stays in float.
        keep_last: The last one does.
        calibration_instances: Training pictures that the ranges of activations are taken from.
    """

    precisions: tuple[Literal["int8", "fp16"], ...] = ()
    max_accuracy_drop: float = 0.5
    keep_first: bool = False
    keep_last: bool = False
    calibration_instances: int = 256

    def __post_init__(self) -> None:
        if not 0 <= self.max_accuracy_drop <= 100:
            raise InvalidConfig(f"--max-accuracy-drop {self.max_accuracy_drop}: points of accuracy, 0 to 100")
        if self.calibration_instances < 1:
            raise InvalidConfig(f"--calibration-instances {self.calibration_instances}: must be at least 1")


@dataclass(frozen=True, slots=True)
class AdoptConfig:
    """An ONNX classifier from elsewhere.

    Attributes:
        file: The ONNX file.
        output: What it gives.
        output_name: Of the output that is meant; None: there is only one that can be.
        task: ``multiclass`` (one label is right) or ``multilabel`` (any number).
    """

    file: Path
    output: Literal["logits", "probabilities"]
    output_name: str | None = None
    task: Literal["multiclass", "multilabel"] = "multiclass"


@dataclass(frozen=True, slots=True)
class RunConfig:
    """A whole run: train → calibrate → cost → fold → export → verify → publish.

    Attributes:
        name: Of the model.
        repository: Where it is published.
        objective: Of the fold.
        data: Which pictures.
        model: Which network.
        train: How it is trained.
        quantize: Which other precisions, and at what cost.
        calibrate_on: Folder or tar file of unlabeled pictures from where the model will be used; None: the
            running statistics are those of the training pictures.
    """

    name: str
    repository: Path = Path("models")
    objective: Literal["fewest", "speed"] = "speed"
    data: DataConfig = field(default_factory=DataConfig)
    model: ModelConfig = field(default_factory=ModelConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    quantize: QuantizeConfig = field(default_factory=QuantizeConfig)
    calibrate_on: Path | None = None

    def __post_init__(self) -> None:
        require_name(self.name)


def require_name(name: str) -> None:
    """Checks that ``name`` can be a model's: it becomes a folder of the model repository.

    Raises:
        InvalidConfig: It could leave that folder, or be taken for a hidden one.
    """
    if re.fullmatch(MODEL_NAME_PATTERN, name) is None:
        raise InvalidConfig(f"--name '{name}': letters, digits, '.', '_' and '-', at most 64, no leading dot")
