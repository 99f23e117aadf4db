"""What the repository is told at its start."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from service.artifact import Precision
from service.engine import EngineOptions


@dataclass(frozen=True, slots=True)
class RepositoryOptions:
    """What to serve, and how.

    Attributes:
        root: The folder with the models; of a remote repository, the copy.
        origin: Where a remote repository lies; None: ``root`` is the repository.
        models: Names; None: every model in the folder.
        default_model: Answers when a request names none; None: the only model, else ``digits``.
        precision: The file to load of each version; None: what the hardware is made for, where the
            version has it.
        engine: How sessions are built.
        max_queue_size: Most instances admitted and unanswered, for each loaded version.
        max_queue_delay_s: How long an idle engine waits for company.
        inference_timeout_s: A batch that takes longer is a hang.
        is_watched: Whether this process is replaced when its event loop hangs.
        reload_interval_s: Between two looks at the folder; 0: look only when told to.
    """

    root: Path = Path("models")
    origin: str | None = None
    models: Sequence[str] | None = None
    default_model: str | None = None
    precision: Precision | None = Precision.FP32
    engine: EngineOptions = field(default_factory=EngineOptions)
    max_queue_size: int = 1024
    max_queue_delay_s: float = 0.0
    inference_timeout_s: float = 30.0
    is_watched: bool = False
    reload_interval_s: float = 0.0
