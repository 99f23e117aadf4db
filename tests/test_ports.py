"""A test's port is its own."""

from __future__ import annotations

import socket
import subprocess
import sys
from collections.abc import Callable

import pytest

from tests.ports import candidates, free_port


def test_the_kernel_gives_it_to_nobody(unused_tcp_port_factory: Callable[[], int]) -> None:
    """Neither to a server that asks for any nor to the near end of a connection."""
    with socket.create_server(("127.0.0.1", 0)) as given:
        assert given.getsockname()[1] not in candidates()
        with socket.create_connection(given.getsockname()) as near:
            assert near.getsockname()[1] not in candidates()
    assert {unused_tcp_port_factory() for _ in range(3)} < set(candidates())


def test_no_other_process_chooses_it_while_this_one_lives(unused_tcp_port: int) -> None:
    program = f"from tests.ports import free_port; free_port([{unused_tcp_port}])"
    other = subprocess.run(  # noqa: S603 - our own program
        [sys.executable, "-c", program], capture_output=True, text=True, timeout=60, check=False
    )
    assert "no free port" in other.stderr


def test_one_that_somebody_listens_on_is_not_chosen() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener, pytest.raises(OSError, match="no free port"):
        free_port([listener.getsockname()[1]])
