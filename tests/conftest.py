"""What every test may use: the folder with real pictures, or a skip where there is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def data_dir() -> Path:
    """The folder named by ``TEST_DATA_DIR``; skips where it is not set."""
    value = os.environ.get("TEST_DATA_DIR")
    if not value:
        pytest.skip("TEST_DATA_DIR is not set")
    path = Path(value)
    assert path.is_dir(), f"TEST_DATA_DIR={value}: no such folder"
    return path
