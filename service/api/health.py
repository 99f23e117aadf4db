"""``/livez`` and ``/readyz``: whether to restart this process, and whether to send it requests."""

from __future__ import annotations

from typing import Protocol

from fastapi import APIRouter

from service.api.documentation import problem_responses
from service.errors import Reason, RequestError
from service.schemas import Health


class Vitals(Protocol):
    """What the probes ask. None is good news; an error says what is wrong."""

    def why_not_alive(self) -> RequestError | None:
        """Why only a restart helps."""

    def why_not_ready(self) -> RequestError | None:
        """Why no request should be sent here now."""


def health_router(vitals: Vitals) -> APIRouter:
    """The two probes."""
    router = APIRouter(tags=["health"])

    @router.get("/livez", responses=problem_responses(Reason.NOT_READY))
    async def livez() -> Health:
        """Whether the process works at all. 503 once its engine died or hung: restart it."""
        problem = vitals.why_not_alive()
        if problem is not None:
            raise problem
        return Health(status="alive")

    @router.get("/readyz", responses=problem_responses(Reason.NOT_READY, Reason.SHUTTING_DOWN))
    async def readyz() -> Health:
        """Whether predictions are answered now. 503 with the reason while loading, draining or broken."""
        problem = vitals.why_not_ready()
        if problem is not None:
            raise problem
        return Health(status="ready")

    return router
