"""The work folder: what one stage hands to the next, as files.

::

    runs/<name>/
        config.json              what was asked for; later stages take it from here
        weights.safetensors      train      the network's state
        history.json             train      loss and accuracy of each epoch
        cost.json                cost       the unfolded network's cost table
        folded.pt2, fold.json    fold       the folded program, the fate of every BatchNorm
        folded_cost.json         fold       the folded program's cost table
        model.onnx (+ .sha256)   export     with metadata and self-test
        verification.json        verify     every proof and accuracy
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from model_export.errors import InvalidConfig

_Record = TypeVar("_Record")

# Which stage makes a file: for the message when it is missing.
_MAKERS: Final = {
    "config.json": "train",
    "weights.safetensors": "train",
    "history.json": "train",
    "cost.json": "cost",
    "folded.pt2": "fold",
    "fold.json": "fold",
    "folded_cost.json": "fold",
    "model.onnx": "export",
    "verification.json": "verify",
}


@dataclass(frozen=True, slots=True)
class WorkDir:
    """One run's folder."""

    path: Path

    def __truediv__(self, name: str) -> Path:
        """A file in it, there or not."""
        return self.path / name

    def has(self, name: str) -> bool:
        """Whether a stage has made this file."""
        return (self.path / name).is_file()

    def require(self, name: str) -> Path:
        """A file that an earlier stage made.

        Raises:
            InvalidConfig: It did not; the message says which one.
        """
        if not self.has(name):
            raise InvalidConfig(
                f"{self.path / name} is missing: run `python -m model_export {_MAKERS[name]}` first"
            )
        return self.path / name

    def write(self, name: str, record: object) -> None:
        """Writes a record (a dataclass, or anything pydantic can write) as JSON."""
        self.path.mkdir(parents=True, exist_ok=True)
        (self.path / name).write_bytes(TypeAdapter(type(record)).dump_json(record, indent=2))

    def read(self, name: str, kind: type[_Record]) -> _Record:
        """The record that `write` wrote.

        Raises:
            InvalidConfig: It is missing, or no such record.
        """
        path = self.require(name)
        try:
            return TypeAdapter(kind).validate_json(path.read_bytes())
        except ValidationError as error:
            raise InvalidConfig(
                f"{path}: {error.errors()[0]['msg']}; delete it and run the stage again"
            ) from error
