"""A contender as a running process: started, asked, weighed, stopped."""

from __future__ import annotations

import contextlib
import http.client
import json
import os
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import psutil

from benchmarks.serving.answers import Answer
from benchmarks.serving.contenders import Contender
from loadtest.bodies import Body

READY_TIMEOUT_S = 120.0
STOP_TIMEOUT_S = 20.0
LOG_TAIL = 2000  # characters of a contender's output that are shown when it fails
REPEATS = 4  # how often a check asks for each body
_POLL_S = 0.02


class WrongAnswer(Exception):
    """A contender that does not answer as it should, or not at all."""


@dataclass(frozen=True, slots=True)
class Server:
    """A contender that answers.

    Attributes:
        ready_s: From the start of the process to the first answer.
    """

    contender: Contender
    port: int
    process: psutil.Process
    ready_s: float

    @property
    def url(self) -> str:
        """Its address."""
        return f"http://127.0.0.1:{self.port}"

    def check(self, bodies: Sequence[Body], expected: Sequence[Answer], tolerance: float) -> None:
        """Asks for all bodies at once, some times over, so that they meet in batches.

        Args:
            bodies: Of different pictures: who mixes up the rows of a batch is to be noticed.
            expected: The answer to each.
            tolerance: How far a probability may be from the expected one.

        Raises:
            WrongAnswer: One is answered otherwise than expected.
        """
        if self.contender.answer is None:
            return
        pairs = [*zip(bodies, expected, strict=True)] * REPEATS
        with ThreadPoolExecutor(len(bodies)) as clients:
            asked = [(clients.submit(_ask, self.port, self.contender.path, body), due) for body, due in pairs]
        for future, due in asked:
            document = future.result()
            if document is None or not self.contender.answer(document).is_near(due, tolerance):
                raise WrongAnswer(
                    f"{self.contender.name}: {document} instead of class {due.index} with a probability "
                    f"of {due.probability:.4f} ± {tolerance:g}"
                )

    def cpu_s(self) -> float:
        """Processor seconds of the process and its children so far."""
        return sum(sum(process.cpu_times()[:2]) for process in self._tree())

    def memory_bytes(self) -> int:
        """Memory of the process and its children, shared pages counted once (PSS)."""
        return sum(process.memory_full_info().pss for process in self._tree())

    def _tree(self) -> list[psutil.Process]:
        return [self.process, *self.process.children(recursive=True)]


@contextlib.contextmanager
def running(contender: Contender, model: Path, probe: Body) -> Iterator[Server]:
    """The contender serving the model, for the length of the block; ``probe`` finds out when it answers."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    with tempfile.TemporaryFile() as log:
        begin = time.monotonic()
        process = subprocess.Popen(
            contender.command(model, port), start_new_session=True, stdout=log, stderr=subprocess.STDOUT
        )
        try:
            while _ask(port, contender.path, probe) is None:
                if process.poll() is not None or time.monotonic() - begin > READY_TIMEOUT_S:
                    raise WrongAnswer(f"{contender.name} does not answer:\n{_tail(log)}")
                time.sleep(_POLL_S)
            yield Server(contender, port, psutil.Process(process.pid), time.monotonic() - begin)
        finally:
            _stop(process)


def _ask(port: int, path: str, body: Body) -> Any:
    """The JSON answer to one body; None: there was no good one."""
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=30)
    try:
        connection.request("POST", path, body.content, {"Content-Type": body.content_type})
        response = connection.getresponse()
        content = response.read()
        return json.loads(content) if response.status == 200 else None
    except (OSError, http.client.HTTPException):
        return None
    finally:
        connection.close()


def _tail(log: BinaryIO) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")[-LOG_TAIL:]


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the whole session, SIGKILL to what outlives the patience."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(STOP_TIMEOUT_S)
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
