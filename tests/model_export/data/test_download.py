"""Downloads from a real server: whole and checked, or not there at all."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from model_export.data.download import fetch
from model_export.errors import DataError

CONTENT = b"pixels" * 50_000
CHECKSUM = hashlib.sha256(CONTENT).hexdigest()


class QuietHandler(SimpleHTTPRequestHandler):
    """Serves a folder without writing a line a request."""

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 (the base class's name for it)
        """Nothing."""


@pytest.fixture
def address(tmp_path: Path) -> Iterator[str]:
    """A server that has one file, ``there``."""
    root = tmp_path / "served"
    root.mkdir()
    (root / "there").write_bytes(CONTENT)
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(QuietHandler, directory=str(root))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join(timeout=10)


def test_a_file_is_fetched_once(address: str, tmp_path: Path) -> None:
    target = tmp_path / "new" / "file"
    fetch(f"{address}/there", target, CHECKSUM)
    assert target.read_bytes() == CONTENT
    target.write_bytes(b"kept")
    fetch(f"{address}/there", target, CHECKSUM)
    assert target.read_bytes() == b"kept"


def test_other_bytes_are_refused(address: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=f"SHA-256 {CHECKSUM}, expected 00"):
        fetch(f"{address}/there", tmp_path / "file", "00")
    assert [entry.name for entry in tmp_path.iterdir()] == ["served"]


def test_a_failed_download_leaves_nothing_and_tells_the_way_out(address: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"missing: download failed.*--data-dir"):
        fetch(f"{address}/missing", tmp_path / "file", CHECKSUM)
    assert [entry.name for entry in tmp_path.iterdir()] == ["served"]
