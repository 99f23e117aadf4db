"""``/metrics``, in the format that the scraper asks for."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Header, Response

from service.api.documentation import Json
from service.metrics import Metrics

_OPENMETRICS = "application/openmetrics-text"


def metrics_router(metrics: Metrics) -> APIRouter:
    """The route that Prometheus scrapes."""
    router = APIRouter(tags=["metrics"])
    documented: Json = {"content": {"text/plain": {}, _OPENMETRICS: {}}}

    @router.get("/metrics", response_class=Response, responses={200: documented})
    async def expose(accept: Annotated[str, Header()] = "") -> Response:
        """All metric families: OpenMetrics if `Accept` names it, else the Prometheus text format."""
        text, media_type = metrics.render(openmetrics=_OPENMETRICS in accept)
        return Response(text, headers={"content-type": media_type})

    return router
