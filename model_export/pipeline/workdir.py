"""The work folder: what one stage hands to the next, as files.

::

    runs/<name>/
        config.json              what was asked for; later stages take it from here
        plan.json                plan       how the network is to be normalised, and why
        weights.safetensors      train      the network's state
        checkpoint.pt            train      where an interrupted training goes on
        history.json             train      loss and accuracy of each epoch
        data.json                train      how many pictures of what it learnt from
        calibrated.safetensors   calibrate  the same with statistics estimated anew
        calibration.json         calibrate  what that brought
        cost.json                cost       the unfolded network's cost table
        folded.pt2, fold.json    fold       the folded program, the fate of every BatchNorm
        fold.svg                 fold       the program before and after
        folded_cost.json         fold       the folded program's cost table
        model.onnx (+ .sha256)   export     with metadata and self-test
        verification.json        verify     every proof and accuracy
        profile.json             verify     how long each node takes
        model.int8.onnx, …       quantize   other precisions
        quantization.json        quantize   how they were made, their proofs and accuracy
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeVar

from pydantic import TypeAdapter, ValidationError

from model_export.errors import InvalidConfig

_Record = TypeVar("_Record")

# What each stage makes.
_FILES: Final = {
    "plan": ("plan.json",),
    "train": ("config.json", "weights.safetensors", "history.json", "data.json"),
    "calibrate": ("calibrated.safetensors", "calibration.json"),
    "cost": ("cost.json",),
    "fold": ("folded.pt2", "fold.json", "fold.svg", "folded_cost.json"),
    "export": ("model.onnx", "model.onnx.sha256"),
    "verify": ("verification.json", "profile.json"),
    "quantize": (
        *("model.int8.onnx", "model.int8.onnx.sha256", "model.fp16.onnx", "model.fp16.onnx.sha256"),
        "quantization.json",
    ),
}
# Whose results are worth nothing once a stage runs again, besides its own.
_OUTDATED: Final = {
    "plan": ("train", "calibrate", "cost", "fold", "export", "verify", "quantize"),
    "train": ("calibrate", "cost", "fold", "export", "verify", "quantize"),
    "calibrate": ("fold", "export", "verify", "quantize"),
    "cost": (),
    "fold": ("export", "verify", "quantize"),
    "export": ("verify", "quantize"),
    "verify": ("quantize",),
    "quantize": (),
}


@dataclass(frozen=True, slots=True)
class WorkDir:
    """One run's folder; made if it is not there.

    Raises:
        InvalidConfig: It cannot be.
    """

    path: Path

    def __post_init__(self) -> None:
        try:
            self.path.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise InvalidConfig(f"--workdir {self.path}: cannot be made ({error.strerror})") from error

    def __truediv__(self, name: str) -> Path:
        """A file in it, there or not."""
        return self.path / name

    def begin(self, stage: str) -> None:
        """Removes what the stage is about to make, and what was made from that."""
        for made_by in (stage, *_OUTDATED[stage]):
            for name in _FILES[made_by]:
                if name != "config.json":  # it says what the stage has to do
                    (self.path / name).unlink(missing_ok=True)

    def has(self, name: str) -> bool:
        """Whether a stage has made this file."""
        return (self.path / name).is_file()

    def require(self, name: str) -> Path:
        """A file that an earlier stage made.

        Raises:
            InvalidConfig: It did not; the message says which one.
        """
        if not self.has(name):
            stage = next(stage for stage, names in _FILES.items() if name in names)
            raise InvalidConfig(f"{self.path / name} is missing: run `python -m model_export {stage}` first")
        return self.path / name

    def write(self, name: str, record: object) -> None:
        """Writes a record (a dataclass, or anything pydantic can write) as JSON."""
        with self.whole(name) as part:
            part.write_bytes(TypeAdapter(type(record)).dump_json(record, indent=2))

    @contextmanager
    def whole(self, name: str) -> Iterator[Path]:
        """Where to write a file: after the block it is there whole, after a kill within it not at all."""
        part = self.path / f".part-{name}"
        yield part
        os.replace(part, self.path / name)

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
