"""A service process to be measured: started, ready, weighed, asked for its metrics, stopped.

What it costs is read from ``/proc`` (Linux): the CPU time of the process and its children, and that of
each one's first thread, which is its event loop.
"""

from __future__ import annotations

import contextlib
import http.client
import os
import re
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import BinaryIO, Final, TypeVar
from urllib.parse import urlsplit

from prometheus_client.parser import text_string_to_metric_families

from service.errors import FoldserveError
from service.settings import ENV_PREFIX

_READY_S: Final = 120.0
_STOP_S: Final = 20.0
_POLL_S: Final = 0.02
_TAIL: Final = 2000
_URL: Final = re.compile(r"listening on (http://\S+)")
_PROC: Final = Path("/proc")
# Positions in /proc/<pid>/stat behind the name (`man proc_pid_stat`, fields 14 and 15).
_USER, _SYSTEM = 11, 12

T = TypeVar("T")


class CannotStart(FoldserveError):
    """A service process that ended, or was not ready in time; says its last words."""


@dataclass(frozen=True, slots=True)
class CpuTime:
    """CPU seconds of a service so far.

    Attributes:
        total_s: Of all its processes and threads.
        loops_s: Of the first thread of each process, which is its event loop.
    """

    total_s: float
    loops_s: float

    def since(self, before: CpuTime) -> CpuTime:
        """What was used in between."""
        return CpuTime(self.total_s - before.total_s, self.loops_s - before.loops_s)


@dataclass(frozen=True, slots=True)
class Footprint:
    """What a service holds.

    Attributes:
        memory_bytes: Resident, of all its processes.
        threads: Of all its processes.
        descriptors: Open files and connections of all its processes.
    """

    memory_bytes: int
    threads: int
    descriptors: int


@dataclass(frozen=True, slots=True)
class Stages:
    """What the service's own metrics say: sums and counts of each stage, images and batches, its workers."""

    seconds: Mapping[str, float]
    counts: Mapping[str, float]
    images: float
    batches: float
    workers: int

    def since(self, before: Stages) -> Stages:
        """What was counted in between."""
        return Stages(
            {stage: value - before.seconds.get(stage, 0.0) for stage, value in self.seconds.items()},
            {stage: value - before.counts.get(stage, 0.0) for stage, value in self.counts.items()},
            self.images - before.images,
            self.batches - before.batches,
            self.workers,
        )

    @property
    def mean_ms(self) -> dict[str, float]:
        """Milliseconds that a request or an image spends in each stage."""
        return {stage: self.seconds[stage] / count * 1e3 for stage, count in self.counts.items() if count > 0}

    @property
    def batch_size(self) -> float:
        """Images run together, on average; 1 where nothing ran."""
        return self.images / self.batches if self.batches > 0 else 1.0


class ServiceProcess:
    """A service that is ready; made by `running`.

    Attributes:
        url: Its address.
        ready_s: From the start of the process to ``/readyz`` 200.
    """

    def __init__(self, process: subprocess.Popen[bytes], url: str) -> None:
        self._process = process
        self.url = url
        self.ready_s = 0.0

    @property
    def pids(self) -> list[int]:
        """Of the process and all its children; empty where the system does not say."""
        return list(_tree(self._process.pid))

    def cpu_time(self) -> CpuTime | None:
        """None where the system does not say."""
        tick_s = 1 / os.sysconf("SC_CLK_TCK")
        try:
            totals = [_ticks(_PROC / str(pid) / "stat") for pid in self.pids]
            loops = [_ticks(_PROC / str(pid) / "task" / str(pid) / "stat") for pid in self.pids]
        except OSError:
            return None
        return CpuTime(sum(totals) * tick_s, sum(loops) * tick_s) if totals else None

    def footprint(self) -> Footprint | None:
        """None where the system does not say."""
        page_bytes = os.sysconf("SC_PAGE_SIZE")
        folders = [_PROC / str(pid) for pid in self.pids]
        try:
            pages = [int((folder / "statm").read_text().split()[1]) for folder in folders]
            threads = [len(os.listdir(folder / "task")) for folder in folders]
            descriptors = [len(os.listdir(folder / "fd")) for folder in folders]
        except OSError:
            return None
        return Footprint(sum(pages) * page_bytes, sum(threads), sum(descriptors)) if folders else None

    def stages(self) -> Stages:
        """What its metrics say now."""
        seconds: dict[str, float] = {}
        counts: dict[str, float] = {}
        images = batches = workers = 0.0
        for family in text_string_to_metric_families(self.get("/metrics")[1].decode()):
            for sample in family.samples:
                if sample.name == "foldserve_stage_duration_seconds_sum":
                    seconds[sample.labels["stage"]] = seconds.get(sample.labels["stage"], 0.0) + sample.value
                elif sample.name == "foldserve_stage_duration_seconds_count":
                    counts[sample.labels["stage"]] = counts.get(sample.labels["stage"], 0.0) + sample.value
                elif sample.name == "foldserve_batch_size_sum":
                    images += sample.value
                elif sample.name == "foldserve_batches_total":
                    batches += sample.value
                elif sample.name == "foldserve_workers":
                    workers += sample.value
        return Stages(seconds, counts, images, batches, int(workers))

    def get(self, path: str) -> tuple[int, bytes]:
        """Status and body."""
        address = urlsplit(self.url)
        connection = http.client.HTTPConnection(address.hostname or "", address.port, timeout=_STOP_S)
        try:
            connection.request("GET", path)
            response = connection.getresponse()
            return response.status, response.read()
        finally:
            connection.close()


@contextlib.contextmanager
def running(
    flags: Sequence[str],
    cpus: Sequence[int] | None = None,
    checkpoint: Callable[[], None] = lambda: None,
) -> Iterator[ServiceProcess]:
    """A service process for the length of the block.

    ``FOLDSERVE_*`` variables of this process are not handed on: the flags are all there is.

    Args:
        flags: Of ``python -m service``, without host and port.
        cpus: Where it may run; None: wherever this process may.
        checkpoint: Called while it starts; what it raises ends the attempt.

    Raises:
        CannotStart: It ended or was not ready in time.
    """
    command = [sys.executable, "-m", "service", "--host", "127.0.0.1", "--port", "0", *flags]
    environment = {name: value for name, value in os.environ.items() if not name.startswith(ENV_PREFIX)}
    started = time.monotonic()
    with tempfile.TemporaryFile() as log, contextlib.ExitStack() as stack:
        with _signals_held(), _affinity(cpus):
            # A session of its own: Ctrl-C is for who measures, who then stops this one.
            process = subprocess.Popen(  # noqa: S603 - our own program
                command, env=environment, stdout=log, stderr=log, start_new_session=True
            )
            stack.callback(_stop, process)
        wait_for = partial(_wait_for, process, log, started, checkpoint)
        url = wait_for(lambda: _url_in(log))
        service = ServiceProcess(process, url)
        wait_for(lambda: _is_ready(service) or None)
        service.ready_s = time.monotonic() - started
        yield service


def _is_ready(service: ServiceProcess) -> bool:
    try:
        return service.get("/readyz")[0] == 200
    except OSError:  # it has just ended
        return False


@contextlib.contextmanager
def _signals_held() -> Iterator[None]:
    """A signal in the block counts at its end: what is being started is known by then, and can be stopped."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    heard: list[int] = []
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = {number: signal.signal(number, lambda number, _: heard.append(number)) for number in numbers}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        for late in heard:
            signal.raise_signal(late)


@contextlib.contextmanager
def _affinity(cpus: Sequence[int] | None) -> Iterator[None]:
    """Have what is started in the block run on these CPUs."""
    if cpus is None:
        yield
        return
    before = os.sched_getaffinity(0)
    os.sched_setaffinity(0, cpus)
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def _wait_for(
    process: subprocess.Popen[bytes],
    log: BinaryIO,
    started: float,
    checkpoint: Callable[[], None],
    look: Callable[[], T | None],
) -> T:
    """The first thing that ``look`` finds."""
    while True:
        checkpoint()
        if process.poll() is not None:
            raise CannotStart(f"the service ended with status {process.returncode}: {_tail(log)}")
        if time.monotonic() - started > _READY_S:
            raise CannotStart(f"the service was not ready within {_READY_S:g} s: {_tail(log)}")
        found = look()
        if found is not None:
            return found
        time.sleep(_POLL_S)


def _url_in(log: BinaryIO) -> str | None:
    found = _URL.search(_text(log))
    return found and found[1]


def _tail(log: BinaryIO) -> str:
    return _text(log)[-_TAIL:].strip()


def _text(log: BinaryIO) -> str:
    log.seek(0)
    return log.read().decode(errors="replace")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM, and SIGKILL to what outlives the patience."""
    try:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(_STOP_S)
    finally:  # also when told to end while waiting
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()


def _tree(pid: int) -> Iterator[int]:
    """A process and all below it."""
    yield pid
    try:
        threads = list((_PROC / str(pid) / "task").iterdir())
        children = [child for thread in threads for child in (thread / "children").read_text().split()]
    except OSError:
        return
    for child in children:
        yield from _tree(int(child))


def _ticks(stat: Path) -> int:
    fields = stat.read_text().rpartition(")")[2].split()
    return int(fields[_USER]) + int(fields[_SYSTEM])
