"""Who hears what became of the work."""

from __future__ import annotations

from typing import Literal, Protocol

from service.batcher.batch import FinishedBatch
from service.errors import Reason


class Observer(Protocol):
    """Who wants to know what became of the work. Called on the event loop, once a batch or less."""

    def batch_finished(self, batch: FinishedBatch) -> None:
        """A batch was answered."""

    def batch_failed(self, size: int) -> None:
        """The engine raised for a batch of so many instances, or stopped under it."""

    def instances_cancelled(self, stage: Literal["queue", "decode", "inference"], n: int) -> None:
        """The clients of n instances left while they waited, were decoded, or ran."""

    def instances_failed(self, reason: Reason, n: int) -> None:
        """n instances got this error instead of a row."""


class Unobserved:
    """Nobody wants to know."""

    def batch_finished(self, batch: FinishedBatch) -> None:
        pass

    def batch_failed(self, size: int) -> None:
        pass

    def instances_cancelled(self, stage: Literal["queue", "decode", "inference"], n: int) -> None:
        pass

    def instances_failed(self, reason: Reason, n: int) -> None:
        pass
