"""Changing what is wanted of a model as a file operation: a running service follows at its next look.

::

    versions on disk, highest first ──▶ good ones     (loaded and self-tested here, as a service would)
    plan ──▶ new plan ──▶ serving.json                (one rename)
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from service.errors import Forbidden, InvalidConfiguration, ModelRejected
from service.repository.catalogue import Shelf
from service.repository.loading import build
from service.repository.options import RepositoryOptions
from service.repository.plan import LATEST, PLAN_NAME, Plan
from service.repository.remote import open_catalogue


class Workbench:
    """One model of a repository, to be operated on.

    Args:
        options: Where it is; its engine's options, apart from the batch size, are those of the service.
        name: Of the model.

    Raises:
        InvalidConfiguration: No such model, or a plan that is none.
        RemoteUnavailable: A remote repository does not answer.
    """

    def __init__(self, options: RepositoryOptions, name: str) -> None:
        self._options = replace(options, engine=replace(options.engine, max_batch_size=1))
        self._catalogue = open_catalogue(options)
        if name not in self._catalogue.names():
            raise InvalidConfiguration(f"no model '{name}' in '{self._catalogue.place}'")
        self._shelf: Shelf = self._catalogue.shelf(name)
        if self._shelf.plan_fault is not None:
            raise InvalidConfiguration(self._shelf.plan_fault)

    @property
    def plan(self) -> Plan:
        """What is wanted of the model at present."""
        return self._shelf.plan

    def roll_back(self, to: str | None = None) -> str:
        """Have an earlier version serve, and nothing newer; says what was done.

        Args:
            to: The version; None: the next good one below the one that serves; ``latest``: any may serve.

        Raises:
            InvalidConfiguration: There is no such version.
            ModelRejected: This version would not serve.
            Forbidden: The repository cannot be written.
        """
        if to == LATEST:
            return self.write(self.plan.model_copy(update={"version": None}))
        if to is None:
            good = self._good(self.plan)
            serving = next(good, "none")
            to = next(good, None)
            if to is None:
                raise InvalidConfiguration(f"{self._shelf.name}: no good version below {serving}")
        return self.write(self.plan.model_copy(update={"is_served": True, "version": to}))

    def write(self, plan: Plan) -> str:
        """Write a plan whose versions are all good; says what is wanted from now on.

        Raises:
            InvalidConfiguration: It names a version that there is not, or leaves none to be live.
            ModelRejected: It names one that would not serve.
            Forbidden: The repository cannot be written.
        """
        folder = f"{self._catalogue.place}/{self._shelf.name}"
        for version in plan.wanted:
            if version not in self._shelf.versions:
                there = ", ".join(self._shelf.versions)
                raise InvalidConfiguration(f"{folder}: no version {version}; there is: {there}")
            self._check(version)
        if plan.is_served and next(self._good(plan), None) is None:
            raise InvalidConfiguration(f"{folder}: this leaves no version that may be live")
        try:
            self._catalogue.write_plan(self._shelf.name, plan)
        except OSError as error:
            raise Forbidden(f"{folder}: cannot be written: {error.strerror}") from error
        return f"{folder}/{PLAN_NAME}: {plan.model_dump_json(exclude_defaults=True)}"

    def _good(self, plan: Plan) -> Iterator[str]:
        """The versions that could be live, best first."""
        for version in self._shelf.versions:
            if plan.allows(version) and self._is_good(version):
                yield version

    def _is_good(self, version: str) -> bool:
        try:
            self._check(version)
        except ModelRejected:
            return False
        return True

    def _check(self, version: str) -> None:
        path = self._catalogue.model_file(self._shelf.name, version)
        build(self._shelf.name, version, path, self._options.engine)
