"""The hot routes: those that are answered without the framework, and how they are found."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from starlette.routing import compile_path

from service.api.exchange import Endpoint, Exchange

METHOD: Final = "POST"


@dataclass(frozen=True, slots=True)
class LeanRoute:
    """One of them; they all answer `METHOD` and nothing else.

    Attributes:
        template: Its path, as the framework writes it.
        endpoint: What answers.
    """

    template: str
    endpoint: Endpoint


class LeanRoutes:
    """All of them."""

    def __init__(self, routes: Sequence[LeanRoute]) -> None:
        self._fixed = {route.template: route for route in routes if "{" not in route.template}
        self._patterns: list[tuple[re.Pattern[str], LeanRoute]] = [
            (compile_path(route.template)[0], route) for route in routes if "{" in route.template
        ]
        self._prefixes = tuple({route.template.partition("{")[0] for _, route in self._patterns})

    def find(self, exchange: Exchange) -> LeanRoute | None:
        """The route of a request's path, whatever its method; notes its template and parameters."""
        path: str = exchange.scope["path"]
        route = self._fixed.get(path)
        if route is None and path.startswith(self._prefixes):
            route = self._match(path, exchange)
        if route is not None:
            exchange.route = route.template
        return route

    def _match(self, path: str, exchange: Exchange) -> LeanRoute | None:
        for pattern, route in self._patterns:
            if (match := pattern.match(path)) is not None:
                exchange.path_parameters = match.groupdict()
                return route
        return None
