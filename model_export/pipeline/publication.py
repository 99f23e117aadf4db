"""A new version appears in the model repository whole, or not at all.

::

    models/digits/.publishing-x7k2/   every file written and synced
                  └── rename ──▶  models/digits/4/          one step of the file system

A process that dies before the rename leaves a hidden folder that the service does not look at and a
later publication sweeps away. Two publishers that want the same number: the rename of the second one
fails, and it takes the next number.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Final

from model_export.config import require_name
from model_export.errors import PublishFailed
from service.artifact import VERSION_PATTERN

_PREFIX: Final = ".publishing-"
_ABANDONED_AFTER_S: Final = 3600  # no publication takes an hour: it only writes files that are ready
_ATTEMPTS: Final = 100
_TAKEN: Final = (errno.EEXIST, errno.ENOTEMPTY)


def next_version(repository: Path, name: str) -> int:
    """The whole number after the highest version of ``name``.

    Raises:
        InvalidConfig: The name could leave the repository's folder.
    """
    require_name(name)
    folder = repository / name
    entries = [entry.name for entry in folder.iterdir()] if folder.is_dir() else []
    return 1 + max((int(entry) for entry in entries if re.fullmatch(VERSION_PATTERN, entry)), default=0)


def require_writable(repository: Path) -> None:
    """Checks, as far as that can be known, that a version could be published.

    Raises:
        PublishFailed: ``repository``, or the folder that it would be made in, is none or cannot be written.
    """
    place = next(each for each in (repository, *repository.absolute().parents) if each.exists())
    if not (place.is_dir() and os.access(place, os.W_OK | os.X_OK)):
        raise PublishFailed(f"--repository {repository}: {place} is not a folder that can be written")


def publish(repository: Path, name: str, write: Callable[[Path, int], None]) -> Path:
    """Publishes one version, atomically and durably.

    Args:
        repository: Made if it is not there.
        name: The model's.
        write: Fills an empty folder with the files of this version number. Called again with the
            next number if another publisher took it.

    Returns:
        The version's folder.

    Raises:
        InvalidConfig: An impossible name.
        PublishFailed: The file system refused. What was there before still is.
    """
    folder = repository / name
    try:
        next_version(repository, name)
        folder.mkdir(parents=True, exist_ok=True)
        _sweep(folder)
        return _publish(repository, name, write)
    except OSError as error:
        raise PublishFailed(f"{folder}: {error.strerror or error}; nothing was published") from error


def _publish(repository: Path, name: str, write: Callable[[Path, int], None]) -> Path:
    for _ in range(_ATTEMPTS):
        version = next_version(repository, name)
        staged = Path(tempfile.mkdtemp(prefix=_PREFIX, dir=repository / name))
        try:
            write(staged, version)
            _sync_tree(staged)
            staged.chmod(0o755)  # mkdtemp makes it private; the service may run as another user
            target = staged.with_name(str(version))
            os.rename(staged, target)
        except OSError as error:
            if error.errno not in _TAKEN:
                raise
        else:
            _sync(target.parent)
            return target
        finally:
            shutil.rmtree(staged, ignore_errors=True)
    raise PublishFailed(f"{repository / name}: {_ATTEMPTS} version numbers in a row were taken by others")


def _sweep(folder: Path) -> None:
    """Removes what publications that died have left."""
    for entry in folder.glob(f"{_PREFIX}*"):
        if time.time() - entry.stat().st_mtime > _ABANDONED_AFTER_S:
            shutil.rmtree(entry, ignore_errors=True)


def _sync_tree(folder: Path) -> None:
    for path in folder.iterdir():
        _sync(path)
    _sync(folder)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
