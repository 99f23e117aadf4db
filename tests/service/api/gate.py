"""A repository whose engines can be stopped, opened and made to fail, so that no test has to sleep."""

from __future__ import annotations

import asyncio
import threading
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from service.engine import Engine, EngineOptions
from service.metrics import Metrics
from service.repository import BuiltModel, Repository, RepositoryOptions

_TIMEOUT_S = 10.0


class Gate:
    """What every batch passes through on the engine thread. Open at first.

    Attributes:
        error: Raised by the next batches, if set.
        batch_sizes: Of all batches that came.
    """

    def __init__(self) -> None:
        self.error: Exception | None = None
        self.batch_sizes: list[int] = []
        self._is_open = threading.Event()
        self._is_occupied = threading.Event()
        self.open()

    def open(self) -> None:
        """Let batches through."""
        self._is_open.set()

    def shut(self) -> None:
        """Hold the next batch."""
        self._is_occupied.clear()
        self._is_open.clear()

    async def occupied(self) -> None:
        """Wait until a batch stands before the shut gate."""
        assert await asyncio.to_thread(self._is_occupied.wait, _TIMEOUT_S), "no batch came"

    def enter(self, size: int) -> None:
        """Called on the engine thread with every batch."""
        self.batch_sizes.append(size)
        self._is_occupied.set()
        assert self._is_open.wait(_TIMEOUT_S), "the gate was never opened"
        if self.error is not None:
            raise self.error


class GatedEngine(Engine):
    """A real engine behind a gate."""

    def __init__(self, engine: Engine, gate: Gate) -> None:
        self.__dict__.update(engine.__dict__)
        self._gate = gate

    def run(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As the real one, once the gate is open."""
        self._gate.enter(len(pixels))
        return super().run(pixels)


class GatedRepository(Repository):
    """A real repository, all of whose engines stand behind one gate."""

    def __init__(self, options: RepositoryOptions, metrics: Metrics) -> None:
        super().__init__(options, metrics)
        self.gate = Gate()

    def _build(self, name: str, version: str, engine: EngineOptions) -> BuiltModel:
        built = super()._build(name, version, engine)
        return replace(built, engine=GatedEngine(built.engine, self.gate))
