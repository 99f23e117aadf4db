"""Repositories on tiny models, and what requests get from them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import numpy as np

from service.engine import EngineOptions, Provider
from service.metrics import Metrics
from service.repository import Changes, Repository, RepositoryOptions, ServedModel
from tests.model_files import TinyModel, write_model

PATIENCE_S = 30.0
ENGINE = EngineOptions(provider=Provider.CPU, threads=1, max_batch_size=4)
IMAGE = TinyModel.make().image(1)


def versions(root: Path, *numbers: str) -> None:
    """Publish good versions of the model ``tiny``."""
    for number in numbers:
        write_model(root, version=number)


def options(root: Path, **changes: object) -> RepositoryOptions:
    """For small engines; looks only when told to."""
    return RepositoryOptions(root=root, engine=ENGINE, **changes)  # type: ignore[arg-type]


async def started(root: Path, **changes: object) -> Repository:
    """A repository that serves."""
    repository = Repository(options(root, **changes), Metrics(version="test"))
    async with asyncio.timeout(PATIENCE_S):
        await repository.start()
    return repository


@asynccontextmanager
async def serving(root: Path, **changes: object) -> AsyncIterator[Repository]:
    """A repository that serves, and is closed at the end."""
    repository = await started(root, **changes)
    async with asyncio.timeout(PATIENCE_S):
        try:
            yield repository
        finally:
            await repository.close(1)


@asynccontextmanager
async def operating(root: Path, **changes: object) -> AsyncIterator[tuple[Repository, Changes]]:
    """A repository that serves, and what an operator asks of it."""
    async with serving(root, **changes) as repository:
        yield repository, Changes(repository)


def exposition(repository: Repository) -> str:
    """Its metrics as text."""
    return repository._metrics.render()[0].decode()


async def logits(served: ServedModel) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    """What a version answers to `IMAGE`: float32 [K]."""
    with served.batcher.admit(1) as permit:
        row = await served.batcher.submit(permit, IMAGE)
    return np.array(row.logits)


def states(repository: Repository) -> dict[str, str]:
    """Version → state and reason, of a repository with one model."""
    return {line.version: f"{line.state} {line.reason}".strip() for line in repository.index()}
