"""The FastAPI application: everything but the hot routes, and errors in the one form that they have."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property
from typing import Any, Final

import orjson
from fastapi import APIRouter, FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Lifespan, Message, Scope

from service import __version__
from service.api.body import BodyReader
from service.api.documentation import add_operations, predict_operation
from service.api.exchange import ClientLeft, Endpoint, Exchange
from service.api.problems import problem_response
from service.api.protocol.operations import protocol_operations
from service.app.journal import Journal
from service.app.lean import METHOD, LeanRoute
from service.app.scopes import scope_of
from service.errors import (
    InferenceFailed,
    InvalidParameter,
    MalformedBody,
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
        bodies: What reads bodies, within limits.
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
        bodies: BodyReader,
        routers: Sequence[APIRouter],
        lean: Sequence[LeanRoute],
        lifespan: Lifespan[FastAPI],
    ) -> None:
        self._journal = journal
        self._bodies = bodies
        self.app = _Documented(
            title="Foldserve",
            version=__version__,
            summary="Image classification by a folded network.",
            openapi_url=None,  # below: its own writes the document anew for each request
            docs_url=None,  # its page loads its scripts from elsewhere; ours is in `service.api.pages`
            redoc_url=None,
            redirect_slashes=False,
            lifespan=lifespan,
            # Bodies here are JSON, whatever they are called: Triton's clients say nothing, curl says a form.
            strict_content_type=False,
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
        """Answer one request; an unexpected exception is answered, and raised again.

        Raises:
            ClientLeft: It left before its body was complete.
        """
        headers = [header for header in exchange.scope["headers"] if header[0] != b"content-type"]
        scope = {**exchange.scope, "headers": headers, _EXCHANGE_KEY: exchange}
        if exchange.method == "HEAD":
            scope["method"] = "GET"  # the server leaves the body out
        body = _Body(exchange, self._bodies)
        try:
            await self.app(scope, body.receive, exchange.send)
        finally:
            self._bodies.release(exchange)
            exchange.route = _template(scope) or exchange.route
        if body.left is not None:
            raise body.left

    async def _answer_refusal(self, request: Request, error: RequestError) -> Response:
        exchange: Exchange = request.scope[_EXCHANGE_KEY]
        exchange.route = _template(request.scope) or exchange.route
        self._journal.refused(exchange, error)
        return _response(error, exchange)

    async def _answer_http_exception(self, request: Request, error: HTTPException) -> Response:
        if isinstance(error.__cause__, ClientDisconnect):
            return _Unsent()
        allowed = (error.headers or {}).get("Allow")
        if error.status_code == 405 and request.method == "OPTIONS" and allowed is not None:
            return Response(status_code=204, headers={"allow": f"{allowed}, OPTIONS"})
        response = await self._answer_refusal(request, _as_request_error(request, error))
        if allowed is not None:
            response.headers["allow"] = allowed
        return response

    async def _answer_invalid(self, request: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        if first["type"] == "json_invalid":
            return await self._answer_refusal(request, MalformedBody("the body is no JSON"))
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
        operations = [predict_operation(), *protocol_operations()]
        return add_operations(super().openapi(), operations, _needs_key)

    @cached_property
    def _written(self) -> bytes:
        return orjson.dumps(self._document)


class _Body:
    """A request's body as the framework reads it: whole, within the limits, and only if a route wants it.

    Attributes:
        left: That the client left before it was complete.
    """

    def __init__(self, exchange: Exchange, bodies: BodyReader) -> None:
        self._exchange = exchange
        self._bodies = bodies
        self._is_given = False
        self.left: ClientLeft | None = None

    async def receive(self) -> Message:
        """The body, and later that the client has left.

        Raises:
            RequestError: Too large, too slow, or no room for it.
        """
        if self._is_given:
            return await self._exchange.receive()
        self._is_given = True
        try:
            body = await self._bodies.read(self._exchange)
        except ClientLeft as left:
            self.left = left
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": body, "more_body": False}


class _Unsent(Response):
    """The answer to a client that has left."""

    async def __call__(self, *_: object) -> None:
        return


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


def _needs_key(method: str, path: str) -> bool:
    return scope_of(method, path) is not None


def _as_request_error(request: Request, error: HTTPException) -> RequestError:
    if isinstance(error.__cause__, RequestError):  # while the body was read
        return error.__cause__
    if error.status_code == 400:
        return MalformedBody("the body is no JSON document that can be read")
    if error.status_code == 405:
        return MethodNotAllowed(f"{request.method} is not allowed on {request.url.path}")
    return RouteNotFound(f"there is nothing at {request.url.path}")


def _response(error: RequestError, exchange: Exchange) -> Response:
    status, headers, body = problem_response(error, exchange.request_id)
    return Response(body, status, {name.decode(): value.decode() for name, value in headers})


def _template(scope: Scope) -> str | None:
    """The path of the route that was found, as it is declared."""
    return getattr(scope.get("route"), "path", None)
