"""A running application with tiny models, and a client for it without a network."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import httpx
import pytest

from service.api import inference
from service.app import Application
from service.artifact import Task
from service.batcher import Batcher
from service.settings import Settings
from tests.model_files import TinyModel, png, write_model
from tests.service.api.gate import Gate, GatedRepository

TINY = TinyModel.make()
LABELS = ("cat", "dog", "bird")


@dataclass(frozen=True)
class Running:
    """An application that serves, and what a test needs of it."""

    application: Application
    client: httpx.AsyncClient

    @property
    def gate(self) -> Gate:
        """Where its engines can be stopped."""
        return cast("GatedRepository", self.application.repository).gate

    def metric(self, name: str, **labels: str) -> float:
        """The value of one series; 0 where there is none yet."""
        return self.application.metrics.registry.get_sample_value(name, labels) or 0.0


Start: TypeAlias = Callable[..., AbstractAsyncContextManager[Running]]


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A repository with the model ``tiny`` (multiclass) and ``tags`` (multilabel)."""
    root = tmp_path_factory.mktemp("models")
    write_model(root, model=TINY, labels=LABELS)
    write_model(root, name="tags", model=TINY, labels=LABELS, task=Task.MULTILABEL)
    return root


@pytest.fixture
def start(models: Path) -> Start:
    """Starts an application with these settings."""

    @asynccontextmanager
    async def started(**settings: Any) -> AsyncIterator[Running]:
        defaults = {"repository": models, "default_model": "tiny", "threads": 1, "max_batch_size": 8}
        application = Application(Settings(**{**defaults, **settings}), GatedRepository)
        await application.load()
        transport = httpx.ASGITransport(application)
        try:
            async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
                yield Running(application, client)
        finally:
            cast("GatedRepository", application.repository).gate.open()
            await application.close(grace_s=5)

    return started


@pytest.fixture
async def service(start: Start) -> AsyncIterator[Running]:
    """An application with its defaults."""
    async with start() as running:
        yield running


@pytest.fixture(params=["before its batch", "by its batch"])
def whenever_decoded(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Images are decoded at once, or by the thread that runs them, as with lanes."""
    if request.param == "by its batch":
        monkeypatch.setattr(Batcher, "takes_encoded", True)
        monkeypatch.setattr(inference, "is_quick", lambda *_: False)


@pytest.fixture(scope="session")
def image() -> bytes:
    """A PNG that ``tiny`` can see."""
    return png(TINY.image(1))
