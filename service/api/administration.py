"""What an operator asks: which versions there are and why, how a shadow does, and changes to both.

Reading is for everybody; changing needs an API key with the scope ``admin``. Every change is written to
``serving.json`` first, so it outlives the process, and is answered when every process serves by it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import asdict
from typing import Annotated, Self, TypeAlias

from fastapi import APIRouter, Query
from pydantic import BaseModel, ConfigDict, Field

from service.api.documentation import problem_responses
from service.errors import Reason, ReloadResult
from service.metrics import Snapshot, shadow_figures
from service.repository import Changes, Plan, Repository, VersionState, VersionStatus

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
    refusal: Annotated[
        ReloadResult | None,
        Field(description="What kind of fault its files have. Null: they were not refused."),
    ]

    @classmethod
    def of(cls, status: VersionStatus) -> Self:
        """The line of one version's status."""
        return cls(
            version=status.version,
            state=status.state,
            reason=status.reason,
            roles=status.roles,
            refusal=status.refusal,
        )


class ModelDocument(_Document):
    """One model: what is wanted of it, and what became of each version. The highest stands first."""

    name: str
    plan: Plan
    versions: list[VersionLine]


class ShadowReport(_Document):
    """A candidate beside the live version, on copies of its traffic: the sums of all workers.

    Means are null before anything was compared.
    """

    model: str
    version: str
    candidate: str
    agreement: Annotated[float | None, Field(description="Share of images with the same best label.")]
    agreed: int
    differed: int
    dropped: Annotated[int, Field(description="Not compared: the live version had work waiting.")]
    failed: Annotated[int, Field(description="Not answered by the candidate.")]
    distance_mean: Annotated[float | None, Field(description="Total variation of the probabilities, 0 to 1.")]
    live_inference_s: float | None
    candidate_inference_s: float | None


Gather: TypeAlias = Callable[[], Awaitable[Snapshot]]


def administration_router(repository: Repository, changes: Changes, gather: Gather) -> APIRouter:
    """The routes below ``/models/{name}``.

    Args:
        repository: The models.
        changes: To them.
        gather: The metrics of all workers.
    """
    router = APIRouter(prefix="/models/{name}", tags=["models"])

    def document(name: str) -> ModelDocument:
        plan, lines = repository.describe(name)
        return ModelDocument(name=name, plan=plan, versions=[VersionLine.of(line) for line in lines])

    @router.get("", responses=problem_responses(Reason.MODEL_NOT_FOUND))
    async def model(name: str) -> ModelDocument:
        """What is wanted of a model, and what became of each of its versions."""
        return document(name)

    @router.get("/shadow", responses=problem_responses(Reason.MODEL_NOT_FOUND))
    async def shadow(name: str) -> ShadowReport:
        """How the candidate that shadows the live version compares with it."""
        live, candidate = repository.shadow(name)
        figures = shadow_figures(await gather(), name, live.version, candidate.version)
        return ShadowReport(
            model=name,
            version=live.version,
            candidate=candidate.version,
            agreement=figures.agreement,
            **asdict(figures),
        )

    @router.post("/rollback", responses=problem_responses(*CHANGE_REASONS))
    async def rollback(
        name: str,
        to: Annotated[
            str | None, Query(description="A version, or `latest` to take a rollback back.")
        ] = None,
    ) -> ModelDocument:
        """Serve an earlier version (the next lower good one), and nothing newer until this is taken back."""
        await changes.roll_back(name, to)
        return document(name)

    @router.put("/serving", responses=problem_responses(*CHANGE_REASONS))
    async def arrange(name: str, plan: Plan) -> ModelDocument:
        """Replace the plan: version, aliases, canary, shadow. Refused if one of them does not serve."""
        await changes.arrange(name, plan)
        return document(name)

    return router
