"""What holds for every test: seeded examples, ports that stay free, real pictures or a skip without them."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from hypothesis import settings

from tests.ports import free_port

# Examples are the same ones in every run, and a busy machine makes no test fail.
settings.register_profile("foldserve", deadline=None, derandomize=True)
settings.load_profile("foldserve")


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder named by ``TEST_DATA_DIR``; skips where it is not set."""
    value = os.environ.get("TEST_DATA_DIR")
    if not value:
        pytest.skip("TEST_DATA_DIR is not set")
    path = Path(value)
    assert path.is_dir(), f"TEST_DATA_DIR={value}: no such folder"
    return path


@pytest.fixture(scope="session")
def unused_tcp_port_factory() -> Callable[[], int]:
    """In the place of pytest-asyncio's, whose ports may be taken before they are used."""
    return free_port


@pytest.fixture
def unused_tcp_port() -> int:
    """One port."""
    return free_port()


@pytest.fixture
def one_thread() -> Iterator[None]:
    """Torch on one thread: enough for tiny networks, which lose time by waiting for a second one."""
    import torch  # here: most tests need none, and it takes a second

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)
