"""A run's single requests as ``samples.csv``: what `loadtest.comparison` and any other program can read.

::

    at_s,latency_ms,form,images,model,size,kind,decode_ms,queue_ms,…
    0.0042,1.871,raw,1,,,ok,0.210,0.015,…
"""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import numpy as np
from numpy.typing import NDArray

from loadtest.answers import OK
from loadtest.measurement import Sample

FILE_NAME: Final = "samples.csv"
_COLUMNS: Final = ("at_s", "latency_ms", "form", "images", "model", "size", "kind")


class InvalidRun(Exception):
    """A folder that holds no run, or one that cannot be used."""


@dataclass(frozen=True, slots=True, eq=False)
class Samples:
    """The requests of a run, in the order of their beginnings.

    Attributes:
        at_s: float64 [N], when each latency began to count.
        latency_ms: float64 [N].
        images: int64 [N], pictures with a prediction; 0 where the request failed.
        is_answered: bool [N].
    """

    at_s: NDArray[np.float64]
    latency_ms: NDArray[np.float64]
    images: NDArray[np.int64]
    is_answered: NDArray[np.bool_]


def write(samples: Sequence[Sample], folder: Path) -> Path:
    """Writes ``samples.csv`` into ``folder`` and returns its path."""
    stages = sorted({name for sample in samples for name in sample.stages_ms})
    path = folder / FILE_NAME
    with path.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow((*_COLUMNS, *(f"{name}_ms" for name in stages)))
        for sample in sorted(samples, key=lambda sample: sample.at_s):
            figures = (f"{sample.at_s:.6f}", f"{sample.latency_s * 1000:.4f}")
            times = (sample.stages_ms.get(name, "") for name in stages)
            what = (sample.form, sample.images, sample.model, sample.size, sample.kind)
            writer.writerow((*figures, *what, *times))
    return path


def read(folder: Path) -> Samples:
    """The requests of a saved run.

    Raises:
        InvalidRun: There is no ``samples.csv`` in it, or nothing in that.
    """
    path = folder / FILE_NAME
    try:
        with path.open(newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
        at_s = np.array([float(row["at_s"]) for row in rows])
        latency_ms = np.array([float(row["latency_ms"]) for row in rows])
        is_answered = np.array([row["kind"] == OK for row in rows])
        images = np.array([int(row["images"]) for row in rows])
    except (OSError, KeyError, ValueError, TypeError) as error:
        raise InvalidRun(f"{path}: no saved run: {error}") from error
    if not rows:
        raise InvalidRun(f"{path}: a run without requests")
    return Samples(at_s, latency_ms, np.where(is_answered, images, 0), is_answered)
