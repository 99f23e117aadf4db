"""Which versions an operator wants, as one small file: ``models/<name>/serving.json``.

::

    {
      "is_served": true,                              false: the model is unloaded
      "version": "3",                                 the highest that may serve; null: the highest there is
      "aliases": {"stable": "3", "mobile": "2"},      names that `?version=` understands
      "canary": {"version": "4", "weight": 0.05},     a share of the requests that name no version
      "shadow": "5"                                   gets a copy of the traffic; its answers go nowhere
    }

Every field may be left out, and the file as well. It is replaced by a rename, so a reader sees the old plan
or the new one, never half of it. A canary or shadow does not become the live version by being the highest.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path
from typing import Annotated, Final, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from service.artifact import VERSION_PATTERN
from service.errors import InvalidPlan

PLAN_NAME: Final = "serving.json"
# Begins with a letter, so that it is never taken for a version.
ALIAS_PATTERN: Final = r"^[A-Za-z][A-Za-z0-9_-]{0,31}$"
# What these names mean follows from the other fields.
CANARY_ALIAS: Final = "canary"
STABLE_ALIAS: Final = "stable"
# What a rollback is taken back with: no version is too high any more.
LATEST: Final = "latest"

_PREFIX: Final = ".serving-"

Version = Annotated[str, Field(pattern=VERSION_PATTERN)]
Alias = Annotated[str, Field(pattern=ALIAS_PATTERN)]


class _Frozen(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Canary(_Frozen):
    """A version that answers a share of the requests that name none.

    Attributes:
        weight: The share, 0…1.
    """

    version: Version
    weight: float = Field(ge=0, le=1)


class Plan(_Frozen):
    """What an operator wants of one model.

    Attributes:
        is_served: False: the model is unloaded.
        version: The highest that may serve; None: the highest there is.
        aliases: Name → version.
        canary: Who gets a share of the traffic.
        shadow: Who gets a copy of it.
    """

    is_served: bool = True
    version: Version | None = None
    aliases: dict[Alias, Version] = {}
    canary: Canary | None = None
    shadow: Version | None = None

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if CANARY_ALIAS in self.aliases:
            raise ValueError("the alias 'canary' is given by the field canary")
        return self

    @property
    def on_trial(self) -> frozenset[str]:
        """The canary and the shadow: they do not become the live version by being the highest."""
        canary = () if self.canary is None else (self.canary.version,)
        shadow = () if self.shadow is None else (self.shadow,)
        return frozenset((*canary, *shadow))

    @property
    def named(self) -> frozenset[str]:
        """Every version that is kept loaded because the plan names it, besides the one that serves."""
        return self.on_trial.union(self.aliases.values())

    @property
    def wanted(self) -> tuple[str, ...]:
        """Every version that the plan gives by its number, always in the same order."""
        pinned = () if self.version is None else (self.version,)
        return tuple(sorted(self.named.union(pinned)))

    def allows(self, version: str) -> bool:
        """Whether this version may be the live one: not too high, and not on trial."""
        if self.version is None:
            return version not in self.on_trial
        return version == self.version or (int(version) < int(self.version) and version not in self.on_trial)


NO_PLAN: Final = Plan()
# Of a model whose plan could never be read: what it was to hold back is not known.
UNKNOWN_PLAN: Final = Plan(is_served=False)


def read_plan(folder: Path) -> Plan:
    """The plan in a model's folder; the one that wants nothing special where there is none.

    Raises:
        InvalidPlan: It cannot be read, or is not of this form.
    """
    path = folder / PLAN_NAME
    try:
        if path.is_fifo():  # it would be waited for
            raise InvalidPlan(f"{path}: is no file")
        text = path.read_bytes()
    except FileNotFoundError:
        return NO_PLAN
    except OSError as error:
        raise InvalidPlan(f"{path}: cannot be read: {error.strerror}") from error
    return parse_plan(text, path)


def parse_plan(text: bytes, source: Path | str) -> Plan:
    """The plan that a file holds.

    Raises:
        InvalidPlan: It is not of this form; names the first field that is wrong.
    """
    try:
        return Plan.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        message = first["msg"].removeprefix("Value error, ")
        raise InvalidPlan(f"{source}: {where}: {message}") from error


def write_plan(folder: Path, plan: Plan) -> None:
    """Put a plan into a model's folder, whole and durably.

    Raises:
        OSError: The file system refused; what was there before still is.
    """
    descriptor, staged = tempfile.mkstemp(prefix=_PREFIX, dir=folder)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(plan.model_dump_json(indent=2).encode() + b"\n")
            file.flush()
            os.fsync(file.fileno())
        Path(staged).chmod(0o644)  # mkstemp makes it private; the service may run as another user
        os.replace(staged, folder / PLAN_NAME)
    except BaseException:
        Path(staged).unlink(missing_ok=True)
        raise
    _sync(folder)


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
