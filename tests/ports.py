"""Ports that nobody else takes between their choice and their use.

A port that the kernel chose and that was closed again is soon somebody else's: another test's server gets it,
or the near end of any connection from here, even of the one that asks whether the server is ready. So these
lie below the range that the kernel gives away, and each is locked until this process ends: no other run of
the tests chooses it meanwhile.
"""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from typing import Final

_RANGE_FILE: Final = Path("/proc/sys/net/ipv4/ip_local_port_range")
_FIRST: Final = 10_000
_DEFAULT_END: Final = 32_768  # of Linux; elsewhere the kernel's own begin higher
_taken: Final[set[int]] = set()


def candidates() -> Sequence[int]:
    """The ports that the kernel gives to nobody unasked."""
    end = int(_RANGE_FILE.read_text().split()[0]) if _RANGE_FILE.exists() else _DEFAULT_END
    return range(_FIRST, max(end, 2 * _FIRST))


def free_port(among: Sequence[int] | None = None) -> int:
    """A port of 127.0.0.1 that is free, and this process's own until it ends.

    Args:
        among: To choose from; None: `candidates`.
    """
    ports = candidates() if among is None else among
    # Not the seeded generator: every process of a run would try the same ports.
    for port in random.SystemRandom().sample(ports, len(ports)):
        if port not in _taken and _lock(port) and _is_free(port):
            _taken.add(port)
            return port
    raise OSError(f"no free port among {ports!r}")


def _lock(port: int) -> bool:
    """Lock the byte of this number; the kernel unlocks it when the process ends."""
    try:
        fcntl.lockf(_lock_file(), fcntl.LOCK_EX | fcntl.LOCK_NB, 1, port)
    except OSError:
        return False
    return True


@cache
def _lock_file() -> int:
    """Never closed, or all locks were gone."""
    return os.open(
        Path(tempfile.gettempdir()) / f"foldserve-test-ports-{os.getuid()}", os.O_RDWR | os.O_CREAT
    )


def _is_free(port: int) -> bool:
    try:
        socket.create_server(("127.0.0.1", port)).close()
    except OSError:
        return False
    return True
