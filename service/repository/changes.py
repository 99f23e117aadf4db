"""What operators ask: load a model, unload it, go back to an earlier version, follow another plan.

::

    plan on disk ─▶ another plan ─▶ prove            what it wants is loaded and tested beside what serves
                                      │              refused: nothing was written, no request moved
                                      ▼
                                    serving.json     if nobody else has changed it meanwhile
                                      ▼
                                    spread           every process looks, and follows
                                                     one cannot: the plan before it again

One change at a time in each process.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable, Iterator
from contextlib import contextmanager
from typing import Final, TypeAlias

from service.errors import (
    Forbidden,
    InvalidConfiguration,
    InvalidParameter,
    InvalidPlan,
    ModelNotFound,
    NotReady,
    RemoteUnavailable,
)
from service.repository.model import OF_ALL, Faults
from service.repository.plan import LATEST, Plan
from service.repository.repository import Repository

# Has every process of the service look at a model again; what of it does not serve in any of them.
Spread: TypeAlias = Callable[[str], Awaitable[Faults]]

_CANNOT_BE_CHANGED: Final = "the repository cannot be changed now"


class Changes:
    """Changes to what a repository serves. They are written down first, so they outlive the process.

    Args:
        repository: Its models.

    Attributes:
        spread: How a change reaches every process; by itself, only this one.
    """

    def __init__(self, repository: Repository) -> None:
        self.spread: Spread = repository.look_alone
        self._repository = repository
        self._changing = asyncio.Lock()

    async def load(self, name: str) -> None:
        """Serve the newest good version of a model, also one that was unloaded or refused before.

        Raises:
            ModelNotFound: No such model in the repository.
            InvalidParameter: Its newest version does not serve, and why; what served before still does.
            NotReady: The repository does not answer.
            Forbidden: It was unloaded, and the repository cannot be written.
        """
        async with self._changing:
            plan = await self._plan(name)
            if not plan.is_served:
                await self._write(name, plan.model_copy(update={"is_served": True}))
            faults = await self.spread(name)
            _refuse(name, faults, self._repository.newest(name))

    async def unload(self, name: str) -> None:
        """Stop serving a model until it is loaded again; what was admitted is finished.

        Raises:
            ModelNotFound: No such model: it is not in the repository, and nothing is loaded of it.
            NotReady: The repository does not answer.
            Forbidden: The repository cannot be written.
        """
        async with self._changing:
            try:
                plan = await self._plan(name)
            except ModelNotFound:
                self._repository.loaded(name)  # its folder is gone, but not what was loaded
            else:
                await self._write(name, plan.model_copy(update={"is_served": False}))
            await self.spread(name)

    async def roll_back(self, name: str, to: str | None = None) -> None:
        """Serve an earlier version of a model, and nothing newer until this is taken back.

        Aliases, canary and shadow stay what they are.

        Args:
            name: Of the model.
            to: The version; None: the next lower one that is good; ``latest``: take it back.

        Raises:
            ModelNotFound: No such model or version.
            InvalidParameter: This version does not serve, and why; what served before still does.
            NotReady: The repository does not answer.
            Forbidden: The repository cannot be written.
        """
        async with self._changing:
            before = await self._surveyed(name)
            version = None if to == LATEST else await self._target(name, to)
            await self._replace(
                name, before, before.model_copy(update={"is_served": True, "version": version})
            )

    async def arrange(self, name: str, plan: Plan) -> None:
        """Replace what is wanted of a model.

        Raises:
            ModelNotFound: No such model in the repository.
            InvalidParameter: A version that the plan names does not serve, and why; the old plan stays.
            NotReady: The repository does not answer.
            Forbidden: The repository cannot be written.
        """
        async with self._changing:
            await self._replace(name, await self._surveyed(name), plan)

    async def _replace(self, name: str, before: Plan, plan: Plan) -> None:
        """Write a plan whose versions are all good, and have every process follow it.

        Raises:
            InvalidParameter: One of them is not, or not in every process, or somebody else has changed the
                plan meanwhile. The plan before it holds.
        """
        _refuse(name, await self._repository.prove(name, plan), plan.wanted)
        if await self._plan(name) != before:
            raise InvalidParameter(f"model '{name}': somebody else has changed its plan meanwhile; ask again")
        await self._write(name, plan)
        faults = await self.spread(name)
        try:
            _refuse(name, faults, plan.wanted)
        except InvalidParameter:
            if await self._plan(name) == plan:
                await self._write(name, before)
            await self.spread(name)
            raise

    async def _target(self, name: str, to: str | None) -> str:
        """The version that a rollback goes to.

        Raises:
            ModelNotFound: There is no such one.
            InvalidParameter: There is no good one below the live one.
        """
        if to is None:
            below = await self._repository.next_lower(name)
            if below is None:
                raise InvalidParameter(f"model '{name}' has no good version below the one that serves")
            return below
        if to not in (line.version for line in self._repository.describe(name)[1]):
            raise ModelNotFound(f"model '{name}' has no version '{to}'")
        return to

    async def _surveyed(self, name: str) -> Plan:
        """As `_plan`, after a look at what lies there."""
        plan = await self._plan(name)
        with _answered():
            await self._repository.look(name, is_asked=True)
        return plan

    async def _plan(self, name: str) -> Plan:
        """What is wanted of a model at present, so that it can be changed."""
        with _answered():
            plan = await self._repository.plan(name)
        if plan is None:
            raise ModelNotFound(f"no model '{name}' among those to serve")
        return plan

    async def _write(self, name: str, plan: Plan) -> None:
        try:
            await self._repository.write_plan(name, plan)
        except RemoteUnavailable as error:
            raise NotReady(f"{_CANNOT_BE_CHANGED}: {error}") from error
        except OSError as error:
            raise Forbidden(f"the repository cannot be written: {error.strerror}") from error


@contextmanager
def _answered() -> Iterator[None]:
    """What keeps a look from its answer, as it is said to who asked for a change."""
    try:
        yield
    except (OSError, InvalidConfiguration, RemoteUnavailable) as error:
        raise NotReady(f"{_CANNOT_BE_CHANGED}: {error}") from error
    except InvalidPlan as fault:
        raise InvalidParameter(str(fault)) from fault


def _refuse(name: str, faults: Faults, versions: Iterable[str]) -> None:
    """Say what is wrong with versions that somebody asked for, or with the whole.

    Raises:
        InvalidParameter: The first fault.
    """
    for version in (*versions, OF_ALL):
        if version in faults:
            raise InvalidParameter(f"model '{name}': {faults[version]}")
