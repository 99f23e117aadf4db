"""What an operator asks: which versions there are and why, an earlier version, another plan.

Reading is for everybody; changing needs an API key with the scope ``admin``. Every change is written to
``serving.json`` first, so it outlives the process, and is answered when every process serves by it.
"""

from __future__ import annotations

from typing import Annotated, Self

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict

from service.api.documentation import problem_responses
from service.errors import Reason
from service.repository import Plan, Repository, VersionState, VersionStatus

CHANGE_REASONS = (
    Reason.INVALID_PARAMETER,
    Reason.UNAUTHENTICATED,
    Reason.FORBIDDEN,
    Reason.MODEL_NOT_FOUND,
    Reason.NOT_READY,
)


class _Document(BaseModel):
    model_config = ConfigDict(extra="forbid")


class VersionLine(_Document):
    """One version: whether it answers, why not, and what for."""

    version: str
    state: VersionState
    reason: str
    roles: tuple[str, ...]

    @classmethod
    def of(cls, status: VersionStatus) -> Self:
        """The line of one version's status."""
        return cls(version=status.version, state=status.state, reason=status.reason, roles=status.roles)


class ModelDocument(_Document):
    """One model: what is wanted of it, and what became of each version. The highest stands first."""

    name: str
    plan: Plan
    versions: list[VersionLine]


def administration_router(repository: Repository) -> APIRouter:
    """The routes below ``/models/{name}``."""
    router = APIRouter(prefix="/models/{name}", tags=["models"])

    def document(name: str) -> ModelDocument:
        plan, lines = repository.describe(name)
        return ModelDocument(name=name, plan=plan, versions=[VersionLine.of(line) for line in lines])

    @router.get("", responses=problem_responses(Reason.MODEL_NOT_FOUND))
    async def model(name: str) -> ModelDocument:
        """What is wanted of a model, and what became of each of its versions."""
        return document(name)

    @router.post("/rollback", responses=problem_responses(*CHANGE_REASONS))
    async def rollback(
        name: str,
        to: Annotated[
            str | None, Query(description="A version, or `latest` to take a rollback back.")
        ] = None,
    ) -> ModelDocument:
        """Serve an earlier version (the next lower good one), and nothing newer until this is taken back."""
        await repository.rollback(name, to)
        return document(name)

    @router.put("/serving", responses=problem_responses(*CHANGE_REASONS))
    async def arrange(name: str, plan: Plan) -> ModelDocument:
        """Replace the plan: version, aliases, canary, shadow. Refused if one of them does not serve."""
        await repository.arrange(name, plan)
        return document(name)

    return router
