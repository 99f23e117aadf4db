"""Every request is answered exactly once, whoever leaves, dies or is restarted meanwhile."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.endurance import amount
from tests.endurance.books import Books, Column
from tests.model_files import write_model
from tests.service.test_process import command

pytestmark = [pytest.mark.endurance, pytest.mark.timeout(3600)]

REQUESTS = amount.requests()
TIMEOUT_S = 30.0
STEADY, DOOMED = 12, 4
# Seconds between a client's death and the service's restart, in turn.
TURN_S = 3.0
STOPPED = re.compile(r"stopped answered=(\d+) left=(\d+)")


class Incarnations:
    """One service after the other on one port, and what each said at its end.

    Attributes:
        probes: Requests of ours, which the books do not have.
    """

    def __init__(self, folder: Path, port: int) -> None:
        self.url = f"http://127.0.0.1:{port}"
        self.answered = self.left = self.count = self.probes = 0
        self._folder = folder
        self._port = port

    def start(self) -> None:
        """A new one, ready."""
        self.count += 1
        self._log = self._folder / f"{self.count}.log"
        with self._log.open("wb") as log:
            where = ("--port", str(self._port), "--repository", str(self._folder))
            self._process = subprocess.Popen(command(*where, "--shutdown-delay-s", "0.3"), stderr=log)  # noqa: S603 - our own program
        deadline = time.monotonic() + TIMEOUT_S
        while not self._is_ready():
            assert time.monotonic() < deadline
            time.sleep(0.02)

    def _is_ready(self) -> bool:
        try:
            status = httpx.get(f"{self.url}/readyz", timeout=TIMEOUT_S).status_code
        except httpx.ConnectError:
            return False
        self.probes += 1
        return status == 200

    def end(self) -> None:
        """By SIGTERM, under load."""
        self._process.terminate()
        assert self._process.wait(TIMEOUT_S) == 0
        said = STOPPED.search(self._log.read_text())
        assert said is not None
        self.answered += int(said[1])
        self.left += int(said[2])


@contextmanager
def customers(url: str, path: Path, rows: range) -> Iterator[subprocess.Popen[bytes]]:
    """A process of clients."""
    arguments = (url, str(path), str(STEADY + DOOMED), str(rows.start), str(rows.stop))
    program = [sys.executable, "-m", "tests.endurance.crowd", *arguments]
    with subprocess.Popen(program) as process:  # noqa: S603 - our own program
        try:
            yield process
        finally:
            process.wait(TIMEOUT_S)


def test_every_request_is_answered_exactly_once(
    tmp_path: Path, unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path)
    path = tmp_path / "books"
    books = Books(path, STEADY + DOOMED)
    service = Incarnations(tmp_path, unused_tcp_port)
    service.start()
    started, kills = time.monotonic(), 0
    with customers(service.url, path, range(STEADY)):
        while books.total(Column.SENT) < REQUESTS:
            with customers(service.url, path, range(STEADY, STEADY + DOOMED)) as doomed:
                time.sleep(TURN_S)
                doomed.send_signal(signal.SIGKILL)
            kills += 1
            service.end()
            service.start()
        books.end()
    service.end()
    counts = {column.name.lower(): books.total(column) for column in Column}
    with capsys.disabled():
        print(  # noqa: T201 - the figures are what this is for
            f"\n{counts} in {time.monotonic() - started:.0f} s; "
            f"{service.count} services, {kills} clients killed with {DOOMED} connections each; "
            f"services say answered={service.answered - service.probes} left={service.left}"
        )
    assert counts["broken"] == counts["wrong"] == 0
    seen = counts["answered"] + counts["refused"]  # refused: while one that has just started still loads
    killed = counts["sent"] - seen - counts["left"]
    assert 0 <= killed <= kills * DOOMED  # what they waited for when they died
    answered = service.answered - service.probes
    assert seen <= answered
    assert counts["sent"] - killed <= answered + service.left <= counts["sent"]
