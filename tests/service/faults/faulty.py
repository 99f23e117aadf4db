"""The service, with a session that obeys: ``ORDERS=FILE python -m tests.service.faults.faulty --port 0 …``.

::

    the test writes a word into FILE ─▶ the next batch takes the file away, and does what it says
"""

from __future__ import annotations

import asyncio
import os
import socket
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from enum import StrEnum
from pathlib import Path
from typing import Any, Final

import numpy as np
import uvloop
from numpy.typing import NDArray

from service.app import Application
from service.engine import Engine, EngineOptions
from service.logs import configure_logging
from service.repository import BuiltModel, Repository
from service.server import bind
from service.server.process import Server
from service.settings import Settings, load_settings

ORDERS: Final = "ORDERS"
_POLL_S: Final = 0.005


class Order(StrEnum):
    """What a batch is told to do."""

    FAIL = "fail"
    RUN_OUT_OF_MEMORY = "run out of memory"
    POISON = "poison"
    DIE = "die"
    HANG = "hang"
    WAIT = "wait"


class Session:
    """ONNX Runtime's, but obedient."""

    def __init__(self, session: Any, orders: Path) -> None:  # Any: onnxruntime has no types
        self._session = session
        self._orders = orders

    def run(self, outputs: Sequence[str], feeds: Mapping[str, NDArray[np.uint8]]) -> Any:
        """As the real one, unless there is an order."""
        taken = self._orders.with_suffix(".taken")
        if self._orders.exists():
            order = Order(self._orders.read_text())
            self._orders.rename(taken)
            _ACTIONS[order](taken)
        return self._session.run(outputs, feeds)


def _fail(_: Path) -> None:
    raise RuntimeError("Non-zero status code returned while running Conv node")


def _run_out_of_memory(_: Path) -> None:
    raise RuntimeError("bfc_arena.cc:376 AllocateRawInternal Failed to allocate memory for requested buffer")


def _poison(_: Path) -> None:
    raise RuntimeError("CUDA failure 700: an illegal memory access was encountered ; GPU=0 ; hostname=h")


def _die(_: Path) -> None:
    raise SystemExit


def _hang(_: Path) -> None:
    threading.Event().wait()


def _wait(taken: Path) -> None:
    """Until the test takes the file away."""
    while taken.exists():
        time.sleep(_POLL_S)


_ACTIONS: Final[Mapping[Order, Callable[[Path], None]]] = {
    Order.FAIL: _fail,
    Order.RUN_OUT_OF_MEMORY: _run_out_of_memory,
    Order.POISON: _poison,
    Order.DIE: _die,
    Order.HANG: _hang,
    Order.WAIT: _wait,
}


class ObedientEngine(Engine):
    """A real engine around an obedient session."""

    def __init__(self, engine: Engine, orders: Path) -> None:
        self.__dict__.update(engine.__dict__)
        self._session = Session(engine._session, orders)
        self._narrow = Session(engine._narrow, orders)


class FaultyRepository(Repository):
    """A real repository of such engines."""

    def _build(self, name: str, version: str, engine: EngineOptions) -> BuiltModel:
        built = super()._build(name, version, engine)
        return replace(built, engine=ObedientEngine(built.engine, Path(os.environ[ORDERS])))


def main(arguments: Sequence[str]) -> None:
    """As `service.server.serve`, for one process."""
    settings = load_settings(arguments)
    configure_logging(settings.log_level, settings.log_format)
    with bind(settings.host, settings.port) as listener:
        sys.stderr.write(f"listening on http://127.0.0.1:{listener.getsockname()[1]}\n")
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(_serve(settings, listener))


async def _serve(settings: Settings, listener: socket.socket) -> None:
    await Server(Application(settings, FaultyRepository)).run_until_stopped([listener])


if __name__ == "__main__":
    main(sys.argv[1:])
