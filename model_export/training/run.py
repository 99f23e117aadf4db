"""One training run: what it is made of, one epoch of it, and when it ends."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from model_export.architectures import require_logits
from model_export.config import TrainConfig
from model_export.data import ImageDataset
from model_export.errors import DataError, InvalidConfig, TrainingDiverged
from model_export.evaluation import predict, share_right
from model_export.layers import PixelNormalization, batch_norms, evaluating
from model_export.records import EpochRecord, TrainingHistory
from model_export.training import checkpoint as checkpoints
from model_export.training.augmentation import augment
from model_export.training.checkpoint import State
from model_export.training.device import Precision, device_for
from model_export.training.loss import Loss, training_loss
from model_export.training.schedule import learning_rate


def train(
    model: nn.Module,
    dataset: ImageDataset,
    config: TrainConfig,
    *,
    checkpoint: Path | None = None,
    console: Console | None = None,
) -> TrainingHistory:
    """Trains ``model`` in place and says how each epoch went; it is on the CPU and evaluating afterwards.

    Same seed, data and number of threads: same weights, to the bit, on a CPU.

    Args:
        model: Takes normalised float32 [N, C, H, W], returns logits [N, K]. Modified.
        dataset: Trained on its ``train`` split, measured on its ``validation`` split.
        config: How.
        checkpoint: File that is written after each epoch. If it is there already, the run goes on from
            it; whatever ``model`` holds is then replaced.
        console: Where progress is shown; None: nowhere.

    Raises:
        InvalidConfig: The checkpoint is of another run or of more epochs, or the machine lacks what is asked
            for.
        ModelError: While it trains, the network returns something else than when it evaluates.
        TrainingDiverged: The loss is no number any more.
    """
    _require_learnable(model, dataset, config)
    run = Run(model, dataset, config)
    identity = checkpoints.identify(model, dataset, config) if checkpoint else {}
    if checkpoint and (state := checkpoints.load(checkpoint, identity)) is not None:
        run.restore(state)
        if len(run.records) > config.epochs:
            raise InvalidConfig(
                f"{checkpoint}: {len(run.records)} epochs are done, --epochs {config.epochs} are fewer"
            )
    console = console or Console(quiet=True)
    with _progress(console) as progress:
        done, steps = len(run.records), run.steps_per_epoch
        bar = progress.add_task("training", total=config.epochs * steps, completed=done * steps)
        while not run.is_finished:
            record = run.epoch(lambda: progress.advance(bar))
            if checkpoint:
                checkpoints.save(checkpoint, identity, run.state())
            progress.update(bar, description=_headline(record))
            if not console.is_terminal:  # a log has no bar: one line an epoch
                console.print(_headline(record), highlight=False, soft_wrap=True)
    run.finish()
    return TrainingHistory(tuple(run.records))


class Run:
    """A training run between two epochs.

    Args:
        model: Modified, and moved to the device.
        dataset: What it learns from.
        config: How.

    Attributes:
        records: One an epoch so far.
        steps_per_epoch: Batches that the training split is cut into.
    """

    def __init__(self, model: nn.Module, dataset: ImageDataset, config: TrainConfig) -> None:
        torch.manual_seed(config.seed)
        device = device_for(config)
        self.records: list[EpochRecord] = []
        self._normalise = PixelNormalization(dataset.contract.mean, dataset.contract.std)
        self._layout = _fastest_layout(model, self._normalise(torch.from_numpy(dataset.train.images[:2])))
        self._normalise.to(device)
        self._model = _laid_out(model, self._layout).to(device)
        self._dataset = dataset
        self._config = config
        self._device = device
        self._precision = Precision(device, is_mixed=config.mixed_precision)
        self._loss = training_loss(config, dataset.train.targets, len(dataset.labels))
        self._classes = len(dataset.labels)
        self._choices = torch.Generator().manual_seed(config.seed)  # of order and augmentation
        self._optimizer = _optimizer(model, config)
        self.steps_per_epoch = config.steps(len(dataset.train))
        self._best: dict[str, Tensor] | None = None

    @property
    def is_finished(self) -> bool:
        """Whether all epochs are done, or patience is at its end."""
        return len(self.records) >= self._config.epochs or self._epochs_since_best() >= (
            self._config.patience or math.inf
        )

    def epoch(self, stepped: Callable[[], object]) -> EpochRecord:
        """One pass over the training split, then the validation split; recorded.

        Args:
            stepped: Called after every batch.

        Raises:
            TrainingDiverged: The loss is no number any more.
        """
        started = time.perf_counter()
        loss, accuracy, rate = self._learn(stepped)
        validation_loss, validation_accuracy = self._validate()
        record = EpochRecord(
            epoch=len(self.records) + 1,
            train_loss=loss,
            train_accuracy=accuracy,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            learning_rate=rate,
            seconds=time.perf_counter() - started,
        )
        worst = loss if not math.isfinite(loss) else validation_loss
        if not math.isfinite(worst):
            raise TrainingDiverged(
                f"epoch {record.epoch}: the loss is {worst}; try a --learning-rate below {rate:g}"
            )
        self.records.append(record)
        if self._config.patience is not None and self._epochs_since_best() == 0:
            self._best = {key: value.clone() for key, value in self._model.state_dict().items()}
        return record

    def finish(self) -> None:
        """Leaves the network with the weights to keep, on the CPU and evaluating."""
        if self._best is not None:
            self._model.load_state_dict(self._best)
        _laid_out(self._model, torch.contiguous_format).cpu().eval()

    def state(self) -> State:
        """All that the next epoch depends on."""
        return {
            "model": self._model.state_dict(),
            "best": self._best,
            "optimizer": self._optimizer.state_dict(),
            "precision": self._precision.state(),
            "choices": self._choices.get_state(),
            "random": torch.get_rng_state(),
            "random_cuda": torch.cuda.get_rng_state_all() if self._device.type == "cuda" else [],
            "records": [asdict(record) for record in self.records],
        }

    def restore(self, state: State) -> None:
        """Back to where `state` was called."""
        self._model.load_state_dict(state["model"])
        self._best = state["best"]
        self._optimizer.load_state_dict(state["optimizer"])
        self._precision.restore(state["precision"])
        self._choices.set_state(state["choices"])
        torch.set_rng_state(state["random"])
        if self._device.type == "cuda":
            torch.cuda.set_rng_state_all(state["random_cuda"])
        self.records = [EpochRecord(**record) for record in state["records"]]

    def _learn(self, stepped: Callable[[], object]) -> tuple[float, float, float]:
        """Mean loss, accuracy, and the last learning rate of one pass."""
        self._model.train()
        if len(self.records) >= self._config.epochs - self._config.fold_aware_epochs:
            for norm in batch_norms(self._model):
                norm.eval()
        loss_sum = torch.zeros((), dtype=torch.float64, device=self._device)
        right = torch.zeros((), dtype=torch.float64, device=self._device)
        rate = 0.0
        for position, (images, targets) in enumerate(self._batches()):
            rate = self._set_learning_rate(len(self.records) * self.steps_per_epoch + position)
            loss, logits = self._step(images, targets)
            loss_sum += loss * len(targets)
            right += _right(logits, targets)
            stepped()
        size = len(self._dataset.train)
        return float(loss_sum / size), float(right / size), rate

    def _step(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        with self._precision.autocast():
            logits = self._model(self._normalise(images).contiguous(memory_format=self._layout))
            require_logits(
                logits, "while it trains, the network", instances=len(images), classes=self._classes
            )
            loss = self._loss(logits, targets)
        self._optimizer.zero_grad()
        self._precision.step(loss, self._optimizer)
        return loss.detach(), logits.detach()

    def _set_learning_rate(self, step: int) -> float:
        rate = learning_rate(self._config, step, self.steps_per_epoch)
        for group in self._optimizer.param_groups:
            group["lr"] = rate
        return rate

    def _batches(self) -> Iterator[tuple[Tensor, Tensor]]:
        split = self._dataset.train
        images, targets = torch.from_numpy(split.images), torch.from_numpy(split.targets)
        order = torch.randperm(len(split), generator=self._choices)
        for positions in order.tensor_split(self.steps_per_epoch):
            batch = augment(images[positions], self._config, self._choices)
            yield batch.to(self._device), targets[positions].to(self._device)

    def _validate(self) -> tuple[float, float]:
        validation = self._dataset.validation
        logits = predict(self._model, validation.images, self._dataset.contract)
        loss = Loss()(torch.from_numpy(logits), torch.from_numpy(validation.targets))
        return float(loss), share_right(logits, validation.targets)

    def _epochs_since_best(self) -> int:
        losses = [record.validation_loss for record in self.records]
        return len(losses) - 1 - losses.index(min(losses)) if losses else 0


def _laid_out(model: nn.Module, layout: torch.memory_format) -> nn.Module:
    arranged: nn.Module = model.to(memory_format=layout)  # type: ignore[call-overload]  # torch forgot it
    return arranged


def _fastest_layout(model: nn.Module, pixels: Tensor) -> torch.memory_format:
    """Channels last, in which convolutions train up to twice as fast, where the network can be run in it.

    Args:
        model: Not modified.
        pixels: float32 [N, C, H, W], to try it with.
    """
    try:
        with evaluating(model), torch.no_grad():
            _laid_out(model, torch.channels_last)(pixels.contiguous(memory_format=torch.channels_last))
    except RuntimeError:  # it holds a `view` of what then lies otherwise in memory
        return torch.contiguous_format
    else:
        return torch.channels_last
    finally:
        _laid_out(model, torch.contiguous_format)


def _optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    rate, decay = config.learning_rate, config.weight_decay
    if config.optimizer == "adam":
        return torch.optim.Adam(model.parameters(), lr=rate, weight_decay=decay)
    return torch.optim.SGD(model.parameters(), lr=rate, weight_decay=decay, momentum=0.9, nesterov=True)


def _require_learnable(model: nn.Module, dataset: ImageDataset, config: TrainConfig) -> None:
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InvalidConfig(f"--epochs {config.epochs}: the network has nothing to learn; say --epochs 0")
    if not any(batch_norms(model)):
        return
    if config.batch_size == 1:
        raise InvalidConfig("--batch-size 1: a BatchNorm cannot learn from batches of one; at least 2")
    if len(dataset.train) == 1:
        raise DataError(f"{dataset.name}: a single training picture; a BatchNorm cannot learn from it")


def _right(logits: Tensor, targets: Tensor) -> Tensor:
    if targets.dim() == 1:
        return (logits.argmax(dim=1) == targets).sum()
    return ((logits > 0) == targets).to(torch.float64).mean(dim=1).sum()


def _headline(record: EpochRecord) -> str:
    return (
        f"epoch {record.epoch}: loss {record.train_loss:.4f}, "
        f"validation loss {record.validation_loss:.4f}, accuracy {record.validation_accuracy:.2%}"
    )


def _progress(console: Console) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        TaskProgressColumn(),
        TimeRemainingColumn(elapsed_when_finished=True),
        console=console,
        disable=not console.is_terminal,
    )
