"""``/metrics``, in the format that the scraper asks for."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Annotated, TypeAlias

from fastapi import APIRouter, Header, Response

from service.api.documentation import Json

_OPENMETRICS = "application/openmetrics-text"


# Whether as OpenMetrics → the text and its content type.
Scrape: TypeAlias = Callable[[bool], Awaitable[tuple[bytes, str]]]


def metrics_router(scrape: Scrape) -> APIRouter:
    """The route that Prometheus scrapes."""
    router = APIRouter(tags=["metrics"])
    documented: Json = {"content": {"text/plain": {}, _OPENMETRICS: {}}}

    @router.get("/metrics", response_class=Response, responses={200: documented})
    async def expose(accept: Annotated[str, Header()] = "") -> Response:
        """All metric families: OpenMetrics if `Accept` names it, else the Prometheus text format."""
        text, media_type = await scrape(_OPENMETRICS in accept)
        return Response(text, headers={"content-type": media_type})

    return router
