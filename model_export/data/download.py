"""Fetching a data set's file once: checked against its checksum, whole or not there at all."""

from __future__ import annotations

import hashlib
import os
import tempfile
import urllib.request
from pathlib import Path

from rich.console import Console
from rich.progress import Progress

from model_export.errors import DataError

_CHUNK_BYTES = 1 << 16
_TIMEOUT_S = 30.0  # without a byte


def fetch(url: str, target: Path, sha256: str, *, console: Console | None = None) -> None:
    """``target`` with the content of ``url``; nothing is done if it is there already.

    Args:
        url: Where the file is to be had.
        target: Where it goes; its folder is made.
        sha256: What its content must hash to.
        console: Where progress is shown; None: nowhere.

    Raises:
        DataError: The address could not be read, or it gave other bytes. ``target`` does not exist then.
    """
    if target.exists():
        return
    target.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.NamedTemporaryFile(dir=target.parent, prefix=target.name, delete=False) as part:
        try:
            digest = _copy(url, Path(part.name), console or Console(quiet=True))
            if digest != sha256:
                raise DataError(f"{url}: SHA-256 {digest}, expected {sha256}: not the file it should be")
            os.replace(part.name, target)
        except OSError as error:
            raise DataError(
                f"{url}: download failed ({error}); get {target.name} by other means and name its folder "
                "with --data-dir"
            ) from error
        finally:
            Path(part.name).unlink(missing_ok=True)


def _copy(url: str, target: Path, console: Console) -> str:
    digest = hashlib.sha256()
    with (
        urllib.request.urlopen(url, timeout=_TIMEOUT_S) as source,  # noqa: S310 (addresses are constants)
        target.open("wb") as sink,
        Progress(console=console) as progress,
    ):
        size = source.headers["Content-Length"]
        bar = progress.add_task(target.name, total=float(size) if size else None)
        while chunk := source.read(_CHUNK_BYTES):
            digest.update(chunk)
            sink.write(chunk)
            progress.update(bar, advance=len(chunk))
    return digest.hexdigest()
