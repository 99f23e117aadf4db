"""Training from whole splits in memory: seeded, deterministic, measured after every epoch.

::

    pixels uint8 ─ shuffled batch ─ normalise ─ network ─ cross-entropy ─ Adam      each batch
                                                                                    each epoch: validation

Batches are cut from the split directly; at these sizes worker processes would only cost.
"""

from __future__ import annotations

import time
from collections.abc import Iterator

import torch
import torch.nn.functional as F
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from torch import Tensor, nn

from model_export.config import TrainConfig
from model_export.data import ImageDataset, Split
from model_export.evaluation import predict, share_right
from model_export.layers import PixelNormalization
from model_export.records import EpochRecord, TrainingHistory


def train(
    model: nn.Module, dataset: ImageDataset, config: TrainConfig, *, console: Console | None = None
) -> TrainingHistory:
    """Trains ``model`` in place and says how each epoch went. It is evaluating afterwards.

    Same seed, same data, same number of threads: same weights, to the bit.

    Args:
        model: Takes normalised float32 [N, C, H, W], returns logits [N, K]. Modified.
        dataset: Trained on its ``train`` split, measured on its ``validation`` split.
        config: How.
        console: Where progress is shown; None: nowhere.
    """
    run = _Run(model, dataset, config)
    with _progress(console) as progress:
        bar = progress.add_task("training", total=config.epochs)
        while len(run.records) < config.epochs:
            record = run.epoch()
            progress.update(bar, advance=1, description=_headline(record))
    model.eval()
    return TrainingHistory(tuple(run.records))


def loss_of(logits: Tensor, targets: Tensor) -> Tensor:
    """Mean cross-entropy of a batch, natural logarithm.

    Args:
        logits: float [N, K].
        targets: int64 [N] (softmax), or [N, K] of 0 and 1 (a sigmoid a label).
    """
    if targets.dim() == 1:
        return F.cross_entropy(logits, targets)
    return F.binary_cross_entropy_with_logits(logits, targets.to(logits.dtype))


class _Run:
    """A training run between two epochs."""

    def __init__(self, model: nn.Module, dataset: ImageDataset, config: TrainConfig) -> None:
        torch.manual_seed(config.seed)
        self.model = model
        self.dataset = dataset
        self.config = config
        self.records: list[EpochRecord] = []
        self._normalise = PixelNormalization(dataset.contract.mean, dataset.contract.std)
        self._shuffling = torch.Generator().manual_seed(config.seed)
        self._optimizer = torch.optim.Adam(
            model.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay
        )

    def epoch(self) -> EpochRecord:
        """One pass over the training split, then the validation split; recorded."""
        started = time.perf_counter()
        loss, accuracy = self._learn()
        validation_loss, validation_accuracy = self._validate()
        record = EpochRecord(
            epoch=len(self.records) + 1,
            train_loss=loss,
            train_accuracy=accuracy,
            validation_loss=validation_loss,
            validation_accuracy=validation_accuracy,
            learning_rate=self.config.learning_rate,
            seconds=time.perf_counter() - started,
        )
        self.records.append(record)
        return record

    def _learn(self) -> tuple[float, float]:
        self.model.train()
        size = len(self.dataset.train)
        loss_sum = torch.zeros((), dtype=torch.float64)
        right = torch.zeros((), dtype=torch.float64)
        for images, targets in _shuffled(self.dataset.train, self.config.batch_size, self._shuffling):
            logits = self.model(self._normalise(images))
            loss = loss_of(logits, targets)
            self._optimizer.zero_grad()
            loss.backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
            self._optimizer.step()
            loss_sum += loss.detach() * len(targets)
            right += _right(logits.detach(), targets)
        return float(loss_sum / size), float(right / size)

    def _validate(self) -> tuple[float, float]:
        validation = self.dataset.validation
        logits = predict(self.model, validation.images, self.dataset.contract)
        loss = loss_of(torch.from_numpy(logits), torch.from_numpy(validation.targets))
        return float(loss), share_right(logits, validation.targets)


def _shuffled(split: Split, batch_size: int, generator: torch.Generator) -> Iterator[tuple[Tensor, Tensor]]:
    # Batches of nearly equal size: a last batch of one instance would have no batch statistics.
    images, targets = torch.from_numpy(split.images), torch.from_numpy(split.targets)
    order = torch.randperm(len(split), generator=generator)
    for positions in order.tensor_split(-(-len(split) // batch_size)):
        yield images[positions], targets[positions]


def _right(logits: Tensor, targets: Tensor) -> Tensor:
    if targets.dim() == 1:
        return (logits.argmax(dim=1) == targets).sum()
    return ((logits > 0) == targets).to(torch.float64).mean(dim=1).sum()


def _headline(record: EpochRecord) -> str:
    return (
        f"epoch {record.epoch}: loss {record.train_loss:.4f}, "
        f"validation loss {record.validation_loss:.4f}, accuracy {record.validation_accuracy:.2%}"
    )


def _progress(console: Console | None) -> Progress:
    return Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
        console=console or Console(quiet=True),
    )
