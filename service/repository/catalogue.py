"""What lies in the model repository: names, versions, plans, and whether a version's files are all there.

::

    models/<name>/serving.json                           the plan
    models/<name>/<version>/model[.precision].onnx       a version, with its checksum beside it

Names and versions must match their patterns, and no link may lead outside. A version is *settled* once it is
safe to load: its checksum file is there and right, or nothing about it has changed between two looks.
Folders with other names (``.publishing-…``) are not seen at all, which makes publishing a rename.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, TypeAlias

from service.artifact import MODEL_NAME_PATTERN, VERSION_PATTERN, Precision, sidecar_path
from service.engine import verified_digest
from service.errors import InvalidConfiguration, InvalidFile, InvalidPlan
from service.hardware import has_int8_instructions
from service.repository.options import RepositoryOptions
from service.repository.plan import PLAN_NAME, Plan, read_plan, write_plan

_NAME: Final = re.compile(MODEL_NAME_PATTERN)
_VERSION: Final = re.compile(VERSION_PATTERN)

# Of the file to be loaded and its checksum file: name, what changes when it does, and size.
Fingerprint: TypeAlias = tuple[tuple[str, str, int], ...]


@dataclass(frozen=True, slots=True)
class Shelf:
    """One model, as it lies in the repository at one moment.

    Attributes:
        name: Of the model.
        versions: Highest first, each with what changes when its files do.
        plan: What the operator wants of it.
        plan_fault: Why ``serving.json`` cannot be followed; then ``plan`` is not to be used.
    """

    name: str
    versions: Mapping[str, Fingerprint]
    plan: Plan = field(default_factory=Plan)
    plan_fault: str | None = None


class Catalogue:
    """Looks into the repository's folder. Blocking: not for the event loop's thread.

    Args:
        options: Where it is, and what is wanted of it.
    """

    def __init__(self, options: RepositoryOptions) -> None:
        self._options = options
        self._precision = options.precision or _native_precision(options)

    @property
    def place(self) -> str:
        """Where the repository is, for messages."""
        return str(self._options.root)

    def names(self) -> list[str]:
        """Of the models wanted, those that are there.

        Raises:
            InvalidConfiguration: No such folder.
        """
        found = self._found()
        wanted = self._options.models
        return found if wanted is None else [name for name in wanted if name in found]

    def shelf(self, name: str) -> Shelf:
        """One model, as it lies there now.

        Raises:
            OSError: Its folder cannot be read.
        """
        folder = self._options.root / name
        marks = {
            version: self._fingerprint(folder / version) for version in versions(folder, self._options.root)
        }
        try:
            return Shelf(name, marks, self.plan(name))
        except InvalidPlan as fault:
            return Shelf(name, marks, plan_fault=str(fault))

    def plan(self, name: str) -> Plan:
        """What the operator wants of a model.

        Raises:
            InvalidPlan: ``serving.json`` cannot be followed.
        """
        folder = self._options.root / name
        if not _is_inside(folder / PLAN_NAME, self._options.root):
            raise InvalidPlan(f"{folder / PLAN_NAME}: leads out of the repository")
        return read_plan(folder)

    def write_plan(self, name: str, plan: Plan) -> None:
        """Put a plan into a model's folder.

        Raises:
            OSError: The file system refused; what was there before still is.
        """
        write_plan(self._options.root / name, plan)

    def model_file(self, name: str, version: str) -> Path:
        """The file of the wanted precision.

        Raises:
            InvalidFile: There is none, or it is a link that leads out of the repository.
        """
        folder = self._options.root / name / version
        try:
            path = self._path(folder)
            if not path.is_file():
                raise InvalidFile(f"{folder}: no {path.name} in it")
            for each in (path, sidecar_path(path)):
                self._check_file(each)
        except OSError as error:
            raise InvalidFile(f"{folder}: cannot be read: {error}") from error
        return path

    def _check_file(self, path: Path) -> None:
        if not _is_inside(path, self._options.root):
            raise InvalidFile(f"{path}: leads out of the repository '{self._options.root}'")
        if path.exists() and not path.is_file():
            raise InvalidFile(f"{path}: is no file")

    def is_whole(self, name: str, version: str) -> bool:
        """Whether the version's checksum file is there and right. Reads the whole model file."""
        try:
            path = self.model_file(name, version)
            if not sidecar_path(path).is_file():
                return False
            verified_digest(path)
        except InvalidFile:
            return False
        return True

    def _found(self) -> list[str]:
        root = self._options.root
        try:
            if root.is_dir():
                return model_names(root)
        except OSError as error:
            raise InvalidConfiguration(f"model repository '{root}' cannot be read: {error}") from error
        raise InvalidConfiguration(f"no model repository at '{root}'; `make model` makes one")

    def _path(self, folder: Path) -> Path:
        path = folder / self._precision.file_name
        if self._options.precision is None and not path.is_file():
            return folder / Precision.FP32.file_name
        return path

    def _fingerprint(self, folder: Path) -> Fingerprint:
        path = self._path(folder)
        return tuple(_mark(each) for each in (path, sidecar_path(path)))


def model_names(root: Path) -> list[str]:
    """The models in a repository, by name: folders that hold a version."""
    names = filter(is_name, _folders(root, root))
    return sorted(name for name in names if versions(root / name, root))


def versions(folder: Path, root: Path) -> list[str]:
    """A model's versions, highest first."""
    return sorted(filter(is_version, _folders(folder, root)), key=int, reverse=True)


def is_name(text: str) -> bool:
    """Whether a model may be called so; nothing that leads elsewhere may."""
    return _NAME.fullmatch(text) is not None


def is_version(text: str) -> bool:
    """Whether this is a version: a whole number."""
    return _VERSION.fullmatch(text) is not None


def _folders(parent: Path, root: Path) -> Iterator[str]:
    """The folders in a folder, without links that lead out of the repository."""
    return (entry.name for entry in parent.iterdir() if entry.is_dir() and _is_inside(entry, root))


def _is_inside(path: Path, root: Path) -> bool:
    # Not `Path.resolve`, which raises where a link leads to itself.
    return Path(os.path.realpath(path)).is_relative_to(os.path.realpath(root))


def _mark(path: Path) -> tuple[str, str, int]:
    """What changes when somebody replaces or writes the file; an empty mark where there is none."""
    try:
        status = path.stat()
    except OSError:
        return path.name, "", 0
    return path.name, f"{status.st_ino} {status.st_mtime_ns}", status.st_size


def _native_precision(options: RepositoryOptions) -> Precision:
    """The precision that the hardware is made for: the same on every replica, so no stopwatch."""
    if options.engine.provider.kind != "cpu":
        return Precision.FP16
    return Precision.INT8 if has_int8_instructions() else Precision.FP32
