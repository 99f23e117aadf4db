"""The command that makes the same file again."""

from __future__ import annotations

import shlex
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

from model_export.config import AdoptConfig, RunConfig

if TYPE_CHECKING:
    from _typeshed import DataclassInstance


def command(config: RunConfig, adoption: AdoptConfig | None = None) -> str:
    """The command line of a run, with every setting that is not the default.

    Args:
        config: What was asked for.
        adoption: For a file that came from elsewhere.
    """
    words = ["python", "-m", "model_export", "run" if adoption is None else "adopt"]
    if adoption is not None:
        words += [str(adoption.file), *_changed(adoption, skipped={"file"})]
    for part in (config.data, config.model, config.train, config.quantize):
        words += _changed(part, skipped={"seed"} if part is config.data else set())
    words += [
        *_changed(config, skipped={"data", "model", "train", "quantize", "name"}),
        "--name",
        config.name,
    ]
    return " ".join(shlex.quote(word) for word in words)


def _changed(record: DataclassInstance, skipped: set[str]) -> Iterator[str]:
    """``--flag value`` of every field that differs from its default."""
    for each in fields(record):
        value = getattr(record, each.name)
        if each.name in skipped or value == each.default:
            continue
        yield f"--{each.name.replace('_', '-')}"
        if value is not True:
            yield _text(each.name, value)


def _text(name: str, value: object) -> str:
    if isinstance(value, tuple):
        return ("x" if name == "input" else ",").join(map(str, value))
    return value.as_posix() if isinstance(value, Path) else str(value)
