"""The service under load: found at its address, or started there and stopped again.

::

    GET /readyz ── 200 ──▶ use it, leave it alone afterwards
         └─ nothing answers ─▶ start the given command ─▶ wait for 200 ─▶ … ─▶ SIGTERM, wait
"""

from __future__ import annotations

import contextlib
import http.client
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator
from urllib.parse import SplitResult, urlsplit

LOCAL_HOSTS = ("127.0.0.1", "localhost", "::1")
READY_TIMEOUT_S = 600.0  # the command may have to train the default model first
STOP_TIMEOUT_S = 40.0  # longer than the service's own grace for a drain
_POLL_S = 0.1
_PROBE_TIMEOUT_S = 5.0


class TargetUnavailable(Exception):
    """No service answers at the address, and none could be started there."""


def is_ready(url: str) -> bool:
    """Whether the service at ``url`` says that it can predict."""
    address = urlsplit(url)
    connection = _connection(address)
    try:
        connection.request("GET", f"{address.path.rstrip('/')}/readyz")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


@contextlib.contextmanager
def running(url: str, start_command: str) -> Iterator[subprocess.Popen[bytes] | None]:
    """A ready service at ``url`` for the length of the block; its process, where it was started for it.

    Args:
        url: Its address.
        start_command: Starts it where none answers; it is given the address as ``FOLDSERVE_HOST`` and
            ``FOLDSERVE_PORT``. Empty: start none.

    Raises:
        TargetUnavailable: None answers, and none could be started.
    """
    if is_ready(url):
        yield None
        return
    address = urlsplit(url)
    if not start_command or address.hostname not in LOCAL_HOSTS:
        raise TargetUnavailable(f"no service is ready at {url}; start one with `make serve`")
    process = subprocess.Popen(  # noqa: S603  # the command comes from the person who runs the test
        shlex.split(start_command), env=os.environ | _address_settings(address), start_new_session=True
    )
    try:
        _wait_until_ready(url, process)
        yield process
    finally:
        _stop(process)


def _connection(address: SplitResult) -> http.client.HTTPConnection:
    kind = http.client.HTTPSConnection if address.scheme == "https" else http.client.HTTPConnection
    return kind(address.hostname or "", address.port, timeout=_PROBE_TIMEOUT_S)


def _address_settings(address: SplitResult) -> dict[str, str]:
    return {"FOLDSERVE_HOST": address.hostname or "", "FOLDSERVE_PORT": str(address.port or 80)}


def _wait_until_ready(url: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not is_ready(url):
        if process.poll() is not None:
            raise TargetUnavailable(f"the service ended with status {process.returncode} before it was ready")
        if time.monotonic() > deadline:
            raise TargetUnavailable(f"the service was not ready within {READY_TIMEOUT_S:g} s")
        time.sleep(_POLL_S)


def _stop(process: subprocess.Popen[bytes]) -> None:
    """SIGTERM to the whole session (the command may be a `make`), SIGKILL to what outlives the grace."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, signal.SIGTERM)
    try:
        process.wait(STOP_TIMEOUT_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        process.wait()
