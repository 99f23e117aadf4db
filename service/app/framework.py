"""The FastAPI application: everything but the hot routes, and errors in the one form that they have."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import orjson
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Lifespan, Scope

from service import __version__
from service.api.documentation import add_operations, predict_operation
from service.api.exchange import Endpoint, Exchange
from service.api.problems import problem_response
from service.api.protocol.operations import protocol_operations
from service.app.journal import Journal
from service.app.lean import METHOD, LeanRoute
from service.errors import (
    InferenceFailed,
    InvalidParameter,
    MethodNotAllowed,
    RequestError,
    RouteNotFound,
)

# Where a request's `Exchange` travels through the framework.
_EXCHANGE_KEY: Final = "foldserve.exchange"


class Framework:
    """FastAPI between an exchange's two ends.

    Args:
        journal: Told of every refusal.
        routers: What it answers.
        lean: The hot routes. They are answered elsewhere, and mounted here for their 405 and their place
            among the routes.
        lifespan: For a server that runs it.

    Attributes:
        app: The FastAPI application.
    """

    def __init__(
        self,
        journal: Journal,
        routers: Sequence[APIRouter],
        lean: Sequence[LeanRoute],
        lifespan: Lifespan[FastAPI],
    ) -> None:
        self._journal = journal
        self.app = _Documented(
            title="Foldserve",
            version=__version__,
            summary="Image classification by a folded network.",
            openapi_url=None,  # below: its own writes the document anew for each request
            docs_url=None,  # its page loads its scripts from elsewhere; ours is in `service.api.pages`
            redoc_url=None,
            redirect_slashes=False,
            lifespan=lifespan,
        )
        for route in lean:
            self.app.router.routes.append(Route(route.template, _Mounted(route.endpoint), methods=[METHOD]))
        for router in routers:
            self.app.include_router(router)
        self.app.add_api_route("/openapi.json", self.app.answer_document, include_in_schema=False)
        self.app.exception_handler(RequestError)(self._answer_refusal)
        self.app.exception_handler(HTTPException)(self._answer_http_exception)
        self.app.exception_handler(RequestValidationError)(self._answer_invalid)
        self.app.exception_handler(Exception)(_answer_failure)

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request; an unexpected exception is answered, and raised again."""
        scope = {**exchange.scope, _EXCHANGE_KEY: exchange}
        if exchange.method == "HEAD":
            scope["method"] = "GET"  # the server leaves the body out
        try:
            await self.app(scope, exchange.receive, exchange.send)
        finally:
            exchange.route = _template(scope) or exchange.route

    async def _answer_refusal(self, request: Request, error: RequestError) -> Response:
        exchange: Exchange = request.scope[_EXCHANGE_KEY]
        exchange.route = _template(request.scope) or exchange.route
        self._journal.refused(exchange, error)
        return _response(error, exchange)

    async def _answer_http_exception(self, request: Request, error: HTTPException) -> Response:
        allowed = (error.headers or {}).get("Allow")
        if error.status_code == 405 and request.method == "OPTIONS" and allowed is not None:
            return Response(status_code=204, headers={"allow": f"{allowed}, OPTIONS"})
        response = await self._answer_refusal(request, _as_request_error(request, error))
        if allowed is not None:
            response.headers["allow"] = allowed
        return response

    async def _answer_invalid(self, request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        return await self._answer_refusal(request, InvalidParameter(f"{where}: {first['msg']}"))


class _Documented(FastAPI):
    """FastAPI, with the hot routes in its document; which is made once, as it takes tens of milliseconds."""

    def openapi(self) -> dict[str, Any]:
        return self._document

    async def answer_document(self) -> Response:
        """``/openapi.json``."""
        return Response(self._written, media_type="application/json")

    @cached_property
    def _document(self) -> dict[str, Any]:
        return add_operations(super().openapi(), [predict_operation(), *protocol_operations()])

    @cached_property
    def _written(self) -> bytes:
        return orjson.dumps(self._document)


class _Mounted:
    """A lean endpoint as the ASGI application of a route."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, *_: object) -> None:
        await self._endpoint(scope[_EXCHANGE_KEY])


def unexpected_failure() -> RequestError:
    """What a client hears of a failure that nobody thought of."""
    return InferenceFailed("the service failed; its log has the cause under this request id")


async def _answer_failure(request: Request, _: Exception) -> Response:
    return _response(unexpected_failure(), request.scope[_EXCHANGE_KEY])


def _as_request_error(request: Request, error: HTTPException) -> RequestError:
    if error.status_code == 405:
        return MethodNotAllowed(f"{request.method} is not allowed on {request.url.path}")
    return RouteNotFound(f"there is nothing at {request.url.path}")


def _response(error: RequestError, exchange: Exchange) -> Response:
    status, headers, body = problem_response(error, exchange.request_id)
    return Response(body, status, {name.decode(): value.decode() for name, value in headers})


def _template(scope: Scope) -> str | None:
    """The path of the route that was found, as it is declared."""
    return getattr(scope.get("route"), "path", None)
