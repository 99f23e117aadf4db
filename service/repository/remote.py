"""A repository that lies elsewhere, and the copy of it that is served.

::

    remote     <url>/<name>/<version>/model.onnx + .sha256            listed at each look
        │  fetch     only what is to be loaded ─▶ .fetching-…/ ─▶ size, SHA-256 ─▶ rename
        ▼
    cache      <name>/<version>/model.onnx + .sha256 + .origin        a repository of its own
                                                      └ the marks of the remote files it was fetched from

A file is fetched again when the remote's marks (ETag, time, size) have changed *and* its checksum is another.
A version without a checksum file is none: that file, put there last, says that the rest is whole. What is
fetched replaces what was there file by file, the checksum file first away and last back, so a process that is
killed in between leaves a cache that loads. One process at a time fetches into a cache.

A remote that does not answer changes nothing in what serves. A process that starts meanwhile serves from the
cache.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import logging
import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from service.artifact import SIDECAR_SUFFIX, Precision, parse_sidecar, sidecar_path
from service.engine import digest_of, verified_digest
from service.errors import FetchFailed, InvalidFile, InvalidPlan, RemoteUnavailable
from service.repository.catalogue import Catalogue, Fingerprint, Shelf, is_name, is_version, versions
from service.repository.options import RepositoryOptions
from service.repository.plan import NO_PLAN, PLAN_NAME, Plan, parse_plan, write_plan
from service.repository.store import Entry, Store

logger = logging.getLogger(__name__)

_LOCK_NAME: Final = ".lock"
_STAGED_PREFIX: Final = ".fetching-"
_ORIGIN_SUFFIX: Final = ".origin"
# Of a file that a web server tells neither tag nor time of: it is there, and its checksum tells the rest.
_UNMARKED: Final = "unmarked"


def open_catalogue(options: RepositoryOptions) -> Catalogue:
    """What looks into the repository, wherever it lies.

    Raises:
        InvalidConfiguration: A remote's protocol is none, or what it needs is not installed.
    """
    return Catalogue(options) if options.origin is None else RemoteCatalogue(options, options.origin)


class RemoteCatalogue(Catalogue):
    """Looks at the remote, and fetches what is to be loaded. Blocking: not for the event loop's thread.

    Args:
        options: Whose ``root`` is the cache.
        url: Of the remote.

    Raises:
        InvalidConfiguration: The remote's protocol is none, or what it needs is not installed.
    """

    def __init__(self, options: RepositoryOptions, url: str) -> None:
        super().__init__(options)
        self._store = Store(url)
        self._cache = options.root
        self._shelves: dict[str, Shelf] = {}

    @property
    def place(self) -> str:
        """Where the repository is, for messages."""
        return self._store.url

    def names(self) -> list[str]:
        """Of the models wanted, those that are there, after one look at the remote.

        Raises:
            RemoteUnavailable: The remote does not answer, and nothing was ever fetched from it.
        """
        try:
            self._shelves = dict(self._list())
        except RemoteUnavailable as fault:
            if self._shelves:
                raise
            self._shelves = dict(self._cached())
            if not self._shelves:
                raise
            logger.warning("what was fetched before serves, from %s: %s", self._cache, fault)
        return super().names()

    def shelf(self, name: str) -> Shelf:
        """One model, as it lay there at the last look."""
        return self._shelves.get(name) or Shelf(name, {})

    def plan(self, name: str) -> Plan:
        """What the operator wanted of a model at the last look.

        Raises:
            InvalidPlan: ``serving.json`` cannot be followed.
        """
        shelf = self.shelf(name)
        if shelf.plan_fault is not None:
            raise InvalidPlan(shelf.plan_fault)
        return shelf.plan

    def write_plan(self, name: str, plan: Plan) -> None:
        """Put a plan where every process that serves this repository finds it.

        Raises:
            PermissionError: Nothing can be written there.
            RemoteUnavailable: The remote does not answer.
        """
        self._store.write(plan.model_dump_json(indent=2).encode() + b"\n", name, PLAN_NAME)

    def model_file(self, name: str, version: str) -> Path:
        """The file of the wanted precision, in the cache; it is fetched if it is not there.

        Raises:
            InvalidFile: There is none, none with a checksum, or its bytes are not those promised.
            FetchFailed: It could not be fetched now.
        """
        fingerprint = self.shelf(name).versions.get(version)
        if fingerprint is None:  # looked at since, and gone
            raise InvalidFile(f"{self._store.url}/{name}/{version}: is there no more")
        path = self._cache / name / version / str(fingerprint[0][0])
        for file, mark, _ in fingerprint:
            if not mark:
                raise InvalidFile(f"{self._store.url}/{name}/{version}: no {file} in it")
        try:
            with self._locked():
                if not _is_copy(path, fingerprint):
                    self._fetch(path, fingerprint)
                    self._forget(name)
        except RemoteUnavailable as error:
            raise FetchFailed(f"{error}; the next look tries again") from error
        except OSError as error:
            raise FetchFailed(f"{path}: cannot be written: {error.strerror}") from error
        return path

    def is_whole(self, name: str, version: str) -> bool:
        """Whether the model file and its checksum file are both there."""
        fingerprint = self.shelf(name).versions.get(version, ())
        return bool(fingerprint) and all(mark for _, mark, _ in fingerprint)

    def _found(self) -> list[str]:
        return sorted(name for name, shelf in self._shelves.items() if shelf.versions)

    # What lies there.

    def _list(self) -> Iterator[tuple[str, Shelf]]:
        for folder in self._store.entries():
            name = folder.name
            if is_name(name) and folder.is_folder and self._is_wanted(name):
                yield name, self._look_at(name)

    def _is_wanted(self, name: str) -> bool:
        return self._options.models is None or name in self._options.models

    def _look_at(self, name: str) -> Shelf:
        entries = self._store.entries(name)
        found = [entry.name for entry in entries if entry.is_folder and is_version(entry.name)]
        marks = {version: self._marks(name, version) for version in sorted(found, key=int, reverse=True)}
        has_plan = any(entry.name == PLAN_NAME for entry in entries)
        try:
            plan = self._read_plan(name) if has_plan else NO_PLAN
        except InvalidPlan as fault:
            return Shelf(name, marks, plan_fault=str(fault))
        self._remember(name, plan)
        return Shelf(name, marks, plan)

    def _read_plan(self, name: str) -> Plan:
        return parse_plan(self._store.read(name, PLAN_NAME), f"{self._store.url}/{name}/{PLAN_NAME}")

    def _remember(self, name: str, plan: Plan) -> None:
        """Keep a plan for the day on which the remote does not answer."""
        folder = self._cache / name
        try:
            if (folder.is_dir() or plan != NO_PLAN) and super().plan(name) != plan:
                folder.mkdir(parents=True, exist_ok=True)
                write_plan(folder, plan)
        except (OSError, InvalidPlan) as error:
            logger.warning("%s: the plan cannot be kept there: %s", folder, error)

    def _marks(self, name: str, version: str) -> Fingerprint:
        entries = {entry.name: entry for entry in self._store.entries(name, version)}
        file = self._precision.file_name
        if self._options.precision is None and file not in entries:
            file = Precision.FP32.file_name
        both = (file, sidecar_path(Path(file)).name)
        return tuple(self._mark(each, entries.get(each), name, version) for each in both)

    def _mark(self, file: str, entry: Entry | None, *folder: str) -> tuple[str, str, int]:
        """What changes when the file does; an empty one where there is none."""
        if entry is None:
            return file, "", 0
        if entry.mark:
            return file, entry.mark, entry.size_bytes or 0
        # Web servers list names alone.
        if file.endswith(SIDECAR_SUFFIX):
            return file, self._store.read(*folder, file).hex(), 0
        status = self._store.status(*folder, file)
        return file, status.mark or _UNMARKED, status.size_bytes or 0

    def _cached(self) -> Iterator[tuple[str, Shelf]]:
        """What was fetched before, as it lay there when it was."""
        folders = sorted(self._cache.iterdir()) if self._cache.is_dir() else []
        for folder in folders:
            if is_name(folder.name) and folder.is_dir() and self._is_wanted(folder.name):
                found = {each: self._origin(folder / each) for each in versions(folder, self._cache)}
                marks = {version: origin for version, origin in found.items() if origin is not None}
                if marks:
                    yield folder.name, Shelf(folder.name, marks, super().plan(folder.name))

    def _origin(self, folder: Path) -> Fingerprint | None:
        return _read_origin(self._path(folder))

    # Fetching.

    @contextmanager
    def _locked(self) -> Iterator[None]:
        """Alone in the cache, without what others left half done."""
        self._cache.mkdir(parents=True, exist_ok=True)
        with (self._cache / _LOCK_NAME).open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            for left in self._cache.glob(f"{_STAGED_PREFIX}*"):
                shutil.rmtree(left, ignore_errors=True)
            yield

    def _fetch(self, path: Path, fingerprint: Fingerprint) -> None:
        """Bring one file and its checksum into the cache.

        Raises:
            InvalidFile: Its bytes are not those promised.
            RemoteUnavailable: They did not all come.
        """
        where = (path.parent.parent.name, path.parent.name)
        sidecar = sidecar_path(path)
        text = self._store.read(*where, sidecar.name).decode("utf-8", "replace")
        promised = parse_sidecar(text, path)
        staged = Path(tempfile.mkdtemp(prefix=_STAGED_PREFIX, dir=self._cache))
        try:
            if not _has_digest(path, promised):
                self._download(staged / path.name, where, promised, int(fingerprint[0][2]))
            (staged / sidecar.name).write_text(text)
            _origin_path(staged / path.name).write_text(json.dumps(fingerprint))
            _adopt(staged, path)
        finally:
            shutil.rmtree(staged, ignore_errors=True)

    def _download(self, target: Path, where: tuple[str, str], promised: str, size_bytes: int) -> None:
        source = "/".join((self._store.url, *where, target.name))
        digest, fetched = hashlib.sha256(), 0
        with target.open("wb") as file:
            for chunk in self._store.chunks(*where, target.name):
                digest.update(chunk)
                file.write(chunk)
                fetched += len(chunk)
            os.fsync(file.fileno())
        if fetched < size_bytes:
            raise RemoteUnavailable(f"cannot read {source}: {fetched} bytes of {size_bytes} came")
        if digest.hexdigest() != promised:
            raise InvalidFile(
                f"{source}: its SHA-256 is {digest.hexdigest()}, its sidecar promises {promised}; "
                "upload the file again, and its checksum after it"
            )
        logger.info("%s is fetched, %d bytes", source, fetched)

    def _forget(self, name: str) -> None:
        """Drop cached versions that the remote has no more; what is loaded outlives its files."""
        for version in versions(self._cache / name, self._cache):
            if version not in self.shelf(name).versions:
                shutil.rmtree(self._cache / name / version, ignore_errors=True)


def _adopt(staged: Path, path: Path) -> None:
    """Put what was fetched in its place; whoever is killed in between leaves whole files."""
    path.parent.mkdir(parents=True, exist_ok=True)
    origin, sidecar = _origin_path(path), sidecar_path(path)
    if (staged / path.name).exists():
        origin.unlink(missing_ok=True)
        sidecar.unlink(missing_ok=True)
        os.replace(staged / path.name, path)
    for each in (sidecar, origin):
        os.replace(staged / each.name, each)


def _origin_path(path: Path) -> Path:
    return path.with_name(path.name + _ORIGIN_SUFFIX)


def _read_origin(path: Path) -> Fingerprint | None:
    """The remote files that a cached one was fetched from; None: it was not, or not wholly."""
    try:
        marks = json.loads(_origin_path(path).read_bytes())
        return tuple((str(file), str(mark), int(size)) for file, mark, size in marks)
    except (OSError, ValueError, TypeError):
        return None


def _is_copy(path: Path, fingerprint: Fingerprint) -> bool:
    """Whether the cached file is the remote one, whole and undamaged."""
    if _read_origin(path) != fingerprint or not sidecar_path(path).is_file():
        return False
    try:
        verified_digest(path)
    except InvalidFile:
        return False
    return True


def _has_digest(path: Path, promised: str) -> bool:
    try:
        return digest_of(path) == promised
    except OSError:
        return False
