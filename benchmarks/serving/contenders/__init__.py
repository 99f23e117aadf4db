"""Who is compared. Each is a program that is started with a model file and a port.

::

    foldserve            our service, default settings
    foldserve-1          the same with one worker, for models of which the default starts several
    handwritten          the FastAPI endpoint that everybody writes first, one process
    handwritten-2        the same with two processes
    mosec                front in Rust, batching, one worker a core
    mosec-unbatched      the same without batching
    litserve             LitServe with batching
    constant             a bare ASGI function with a constant answer: the floor of HTTP in one Python process
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.serving.answers import Answer
from loadtest.bodies import Form
from service.artifact import Precision

_PACKAGE = __name__


@dataclass(frozen=True, slots=True)
class Contender:
    """A way to serve a model.

    Attributes:
        command: From a model file and a port to the program that serves.
        path: Where it takes images.
        form: Of the bodies it takes.
        answer: What its JSON says; None: its answers say nothing.
        needs: The package without which it cannot run; empty: none.
        has_own_decoder: Whether it decodes in another way than by Pillow in full.
        workloads: The only ones in which it takes part; empty: all.
    """

    name: str
    command: Callable[[Path, int], list[str]]
    path: str
    form: Form
    answer: Callable[[Any], Answer] | None
    needs: str = ""
    has_own_decoder: bool = False
    workloads: tuple[str, ...] = ()

    def takes_part_in(self, workload: str) -> bool:
        """Whether it is measured with this workload."""
        return not self.workloads or workload in self.workloads

    @property
    def is_installed(self) -> bool:
        """Whether its package is there."""
        return not self.needs or importlib.util.find_spec(self.needs) is not None


def _module(name: str, *flags: str) -> Callable[[Path, int], list[str]]:
    def command(model: Path, port: int) -> list[str]:
        return [sys.executable, "-m", f"{_PACKAGE}.{name}", str(model), str(port), *flags]

    return command


def _lone_foldserve(model: Path, port: int) -> list[str]:
    return [*_foldserve(model, port), "--workers", "1"]


def _foldserve(model: Path, port: int) -> list[str]:
    name = model.parents[1].name
    return [
        *(sys.executable, "-m", "service", "--port", str(port)),
        *("--repository", str(model.parents[2]), "--models", name, "--log-level", "warning"),
        *(("--precision", "int8") if model.name == Precision.INT8.file_name else ()),
    ]


def _first_prediction(document: Any) -> Answer:
    return _top_level(document["predictions"][0])


def _top_level(document: Any) -> Answer:
    return Answer(int(document["index"]), float(document["probability"]))


_CORES = str(os.cpu_count() or 1)

CONTENDERS: dict[str, Contender] = {
    contender.name: contender
    for contender in (
        Contender("foldserve", _foldserve, "/predict", "raw", _first_prediction, has_own_decoder=True),
        Contender(
            "foldserve-1",
            _lone_foldserve,
            "/predict",
            "raw",
            _first_prediction,
            has_own_decoder=True,
            workloads=("small", "photos"),  # whose models run on one thread, so that the default is several
        ),
        Contender("handwritten", _module("handwritten", "1"), "/predict", "raw", _top_level),
        Contender("handwritten-2", _module("handwritten", "2"), "/predict", "raw", _top_level),
        Contender("mosec", _module("mosec_server", _CORES, "64"), "/inference", "raw", _top_level, "mosec"),
        Contender(
            "mosec-unbatched", _module("mosec_server", _CORES, "1"), "/inference", "raw", _top_level, "mosec"
        ),
        Contender("litserve", _module("litserve_server"), "/predict", "json", _top_level, "litserve"),
        Contender("constant", _module("constant"), "/predict", "raw", None),
    )
}
