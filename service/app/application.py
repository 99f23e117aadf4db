"""The application: one ASGI object around everything that answers HTTP.

::

    server ──▶ Application                    request id · in flight · metrics · errors · log
                  ├─ POST /predict ─────────▶ PredictEndpoint      (no framework in between)
                  └─ everything else ───────▶ FastAPI              (probes, metrics, pages, documents)

    life       load in the background ──▶ serving ──▶ draining ──▶ closed
    /readyz    503 not_ready              200         503 shutting_down

The hot route is mounted in the FastAPI application as well, so that it has its 405 and its place among the
routes; the direct way saves two thirds of the time that a request spends in the framework.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from enum import StrEnum
from types import MappingProxyType
from typing import Any, Final, TypeAlias

from fastapi import FastAPI
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from service import __version__, access
from service.api.body import BodyLimits
from service.api.documentation import add_predict
from service.api.exchange import ClientLeft, Endpoint, Exchange
from service.api.exposition import metrics_router
from service.api.health import health_router
from service.api.pages import pages_router
from service.api.predict import PredictEndpoint, PredictLimits
from service.api.problems import STATUSES, problem_response
from service.artifact import Precision
from service.engine import EngineOptions, Provider, available_cpus
from service.errors import (
    InferenceFailed,
    InvalidParameter,
    MethodNotAllowed,
    NotReady,
    Reason,
    RequestError,
    RouteNotFound,
    ShuttingDown,
)
from service.images import DecodeLimits
from service.logs import Throttle
from service.metrics import Metrics, Snapshot, registry_of, render, snapshot, triton_names
from service.repository import Repository, RepositoryOptions
from service.settings import Settings

logger = logging.getLogger(__name__)

PREDICT_PATH: Final = "/predict"

METRICS_PATH: Final = "/metrics"

# What needs a key where there are keys; probes, page and documents are for everybody.
_SCOPES: Final = MappingProxyType({PREDICT_PATH: access.Scope.PREDICT, METRICS_PATH: access.Scope.METRICS})

# Where a request's `Exchange` travels through the framework.
_EXCHANGE_KEY: Final = "foldserve.exchange"
# Methods outside the closed set of a metric label count as this.
_OTHER_METHOD: Final = "OTHER"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})
_CLIENT_LEFT: Final = "client left"
# Of these there are thousands a second when there are any.
_CROWD_REASONS: Final = frozenset(
    {
        Reason.OVERLOADED,
        Reason.RATE_LIMITED,
        Reason.DEADLINE_EXCEEDED,
        Reason.NOT_READY,
        Reason.SHUTTING_DOWN,
    }
)


Gather: TypeAlias = Callable[[], Awaitable[Snapshot]]
MakeRepository: TypeAlias = Callable[[RepositoryOptions, Metrics], Repository]


class Phase(StrEnum):
    """Where the application is in its life. It only moves downwards in this list."""

    LOADING = "loading"
    SERVING = "serving"
    DRAINING = "draining"
    CLOSED = "closed"


class Application:
    """Everything that answers HTTP, as one ASGI application. Made and used on one event loop.

    Args:
        settings: Of this process.
        make_repository: What makes the models of its options.
        gather: The metrics of all workers, where this is one of several.

    Attributes:
        phase: Where it is in its life.
        metrics: Of this application alone.
        repository: The models.
        framework: The FastAPI application with all routes.
    """

    def __init__(
        self,
        settings: Settings,
        make_repository: MakeRepository = Repository,
        gather: Gather | None = None,
    ) -> None:
        self.settings = settings
        self._gather = gather
        self.phase = Phase.LOADING
        self.metrics = Metrics(version=__version__)
        self.metrics.watch_ready(lambda: self.why_not_ready() is None)
        self.repository = make_repository(repository_options(settings), self.metrics)
        # Decoding releases the GIL; more threads than CPUs would only take turns.
        self._pool = ThreadPoolExecutor(cpu_share(settings), thread_name_prefix="decode")
        self._predict: Endpoint = PredictEndpoint(
            self.repository.resolve, predict_limits(settings), self._pool, self.metrics
        )
        self._access = make_access(settings)
        self._throttle = Throttle()
        self.framework = self._make_framework()

    def __repr__(self) -> str:
        return f"<Application {self.phase}: {self.repository!r}>"

    # Life.

    async def load(self) -> None:
        """Load, warm and self-test the models; serve from then on.

        Raises:
            InvalidConfiguration, ModelRejected, ProviderUnavailable: As `Repository.start`.
        """
        await self.repository.start()
        if self.phase is Phase.LOADING:
            self.phase = Phase.SERVING

    def drain(self) -> None:
        """Say 503 at ``/readyz`` and close each connection with its answer, but go on answering."""
        if self.phase is not Phase.CLOSED:
            self.phase = Phase.DRAINING

    async def close(self, grace_s: float) -> None:
        """Finish what was admitted within the grace, refuse everything else, end all threads."""
        self.phase = Phase.CLOSED
        await self.repository.close(grace_s)
        self._pool.shutdown(wait=False, cancel_futures=True)

    def why_not_alive(self) -> RequestError | None:
        """Why only a restart helps; None while the process works."""
        return None if self.repository.is_alive else NotReady("an inference engine died or hangs")

    def why_not_ready(self) -> RequestError | None:
        """Why no request should be sent here now; None while predictions are answered."""
        if self.phase is Phase.LOADING:
            return NotReady("the models are being loaded")
        if self.phase is not Phase.SERVING:
            return ShuttingDown("the process is shutting down")
        return self.why_not_alive() or (
            None if self.repository.is_ready else NotReady("a model does not take requests")
        )

    async def scrape(self, openmetrics: bool) -> tuple[bytes, str]:
        """The metrics of the whole service, and their content type."""
        if self._gather is None and not self.settings.triton_metrics:
            return self.metrics.render(openmetrics=openmetrics)
        whole = snapshot(self.metrics) if self._gather is None else await self._gather()
        if self.settings.triton_metrics:
            whole = {**whole, **triton_names(whole)}
        return render(registry_of(whole), openmetrics=openmetrics)

    # Requests.

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http":
            await self.framework(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send)
        exchange.must_close = self.phase in (Phase.DRAINING, Phase.CLOSED)
        inflight = self.metrics.inflight_requests
        inflight.inc()
        try:
            await self._dispatch(exchange)
        except ClientLeft as left:
            self._note_left(exchange, left)
        finally:
            inflight.dec()
            exchange.close()
            self._note_end(exchange)

    async def _dispatch(self, exchange: Exchange) -> None:
        scope = exchange.scope
        try:
            if self._access is not None and scope["path"] in _SCOPES:
                self._access.admit(_SCOPES[scope["path"]], exchange.headers, _address(scope))
            if scope["path"] != PREDICT_PATH:
                await self._through_framework(exchange)
                return
            exchange.route = PREDICT_PATH
            if scope["method"] == "POST":
                await self._predict(exchange)
            else:
                await self._through_framework(exchange)
        except RequestError as error:
            self._note_refusal(exchange, error)
            await exchange.refuse(error)
        except asyncio.CancelledError:
            await self._cut_off(exchange)
        except ClientLeft:
            raise
        except Exception:
            await self._fail(exchange)

    async def _through_framework(self, exchange: Exchange) -> None:
        scope = {**exchange.scope, _EXCHANGE_KEY: exchange}
        if exchange.method == "HEAD":
            scope["method"] = "GET"  # the server leaves the body out
        try:
            await self.framework(scope, exchange.receive, exchange.send)
        finally:
            exchange.route = _template(scope) or exchange.route

    async def _cut_off(self, exchange: Exchange) -> None:
        """The grace is over: the server cancels what still runs."""
        error = ShuttingDown("the process shut down before this was answered; send it again")
        self._note_refusal(exchange, error)
        if not exchange.has_responded:
            await exchange.refuse(error)

    async def _fail(self, exchange: Exchange) -> None:
        """Something nobody thought of: log it whole, tell the client nothing of it."""
        logger.exception("request failed", extra={"fields": _log_fields(exchange)})
        error = InferenceFailed("the service failed; its log has the cause under this request id")
        self.metrics.request_rejected(error.reason)
        if not exchange.has_responded:
            await exchange.refuse(error)

    def _note_refusal(self, exchange: Exchange, error: RequestError) -> None:
        """Count an error and write its line."""
        self.metrics.request_rejected(error.reason)
        held_back = self._throttle.admit(error.reason) if error.reason in _CROWD_REASONS else 0
        if held_back is None:
            return
        fields = {"reason": error.reason.value, "status": STATUSES[error.reason], **_log_fields(exchange)}
        if held_back:
            fields["held_back"] = held_back  # of this reason, since its last line
        level = logging.WARNING if STATUSES[error.reason] >= 500 else logging.INFO
        cause = error.__cause__
        if cause is not None and STATUSES[error.reason] == 500:
            fields["cause"] = repr(cause)
        logger.log(level, "refused: %s", error.detail, extra={"fields": fields})

    def note_early_refusal(self, error: RequestError, request_id: str) -> None:
        """The server refused something before there was a request that it could have handed on."""
        self.metrics.request_rejected(error.reason)
        held_back = self._throttle.admit(error.reason)
        if held_back is not None:
            fields = {"reason": error.reason.value, "request_id": request_id, "held_back": held_back}
            logger.info("refused: %s", error.detail, extra={"fields": fields})

    def _note_left(self, exchange: Exchange, left: ClientLeft) -> None:
        if left.stage == "receive":
            self.metrics.instances_cancelled("receive")
        held_back = self._throttle.admit(_CLIENT_LEFT)
        if held_back is not None:
            fields = {"stage": left.stage, **_log_fields(exchange), "held_back": held_back}
            logger.info("client left", extra={"fields": fields})

    def _note_end(self, exchange: Exchange) -> None:
        if not exchange.status:
            return
        seconds = time.monotonic() - exchange.started
        method = exchange.method if exchange.method in _METHODS else _OTHER_METHOD
        self.metrics.request_finished(exchange.route, method, str(exchange.status), seconds)
        if logger.isEnabledFor(logging.DEBUG):
            fields = {"status": exchange.status, "seconds": seconds, **_log_fields(exchange)}
            logger.debug("answered", extra={"fields": fields})

    # The framework.

    def _make_framework(self) -> FastAPI:
        framework = _Framework(
            title="Foldserve",
            version=__version__,
            summary="Image classification by a folded network.",
            redoc_url=None,
            redirect_slashes=False,
            lifespan=self._lifespan,
        )
        framework.router.routes.append(Route(PREDICT_PATH, _Mounted(self._predict), methods=["POST"]))
        framework.include_router(health_router(self))
        framework.include_router(metrics_router(self.scrape))
        framework.include_router(pages_router(self.repository))
        framework.exception_handler(RequestError)(self._answer_refusal)
        framework.exception_handler(HTTPException)(self._answer_http_exception)
        framework.exception_handler(RequestValidationError)(self._answer_invalid)
        framework.exception_handler(Exception)(_answer_failure)
        return framework

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Under a server other than `service.server`: load before, close after."""
        await self.load()
        stop_watching = self.metrics.watch_event_loop()
        yield
        stop_watching()
        await self.close(self.settings.shutdown_grace_s)

    async def _answer_refusal(self, request: Request, error: RequestError) -> Response:
        exchange: Exchange = request.scope[_EXCHANGE_KEY]
        exchange.route = _template(request.scope) or exchange.route
        self._note_refusal(exchange, error)
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


class _Framework(FastAPI):
    """FastAPI, with the hot route in its document."""

    def openapi(self) -> dict[str, Any]:
        return add_predict(super().openapi())


class _Mounted:
    """A lean endpoint as the ASGI application of a route."""

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint

    async def __call__(self, scope: Scope, *_: object) -> None:
        await self._endpoint(scope[_EXCHANGE_KEY])


def _as_request_error(request: Request, error: HTTPException) -> RequestError:
    if error.status_code == 405:
        return MethodNotAllowed(f"{request.method} is not allowed on {request.url.path}")
    return RouteNotFound(f"there is nothing at {request.url.path}")


async def _answer_failure(request: Request, _: Exception) -> Response:
    """What the client hears of an unexpected failure; `Application` logs it when it arrives there."""
    error = InferenceFailed("the service failed; its log has the cause under this request id")
    return _response(error, request.scope[_EXCHANGE_KEY])


def _response(error: RequestError, exchange: Exchange) -> Response:
    status, headers, body = problem_response(error, exchange.request_id)
    return Response(body, status, {name.decode(): value.decode() for name, value in headers})


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else "unknown"


def _template(scope: Scope) -> str | None:
    """The path of the route that was found, as it is declared."""
    return getattr(scope.get("route"), "path", None)


def _log_fields(exchange: Exchange) -> dict[str, object]:
    return {"request_id": exchange.request_id, "method": exchange.method, "route": exchange.route}


def make_access(settings: Settings) -> access.Access | None:
    """The door that the settings ask for; None where everybody is let in.

    Raises:
        InvalidConfiguration: The file with the keys is not right.
    """
    if settings.api_keys_file is None and not settings.rate_limit_per_minute:
        return None
    keys = None if settings.api_keys_file is None else access.KeyFile(settings.api_keys_file)
    rate = settings.rate_limit_per_minute
    return access.Access(keys, access.RateLimiter(rate) if rate else None)


def cpu_share(settings: Settings) -> int:
    """The CPUs that are this worker's; at least one."""
    return max(1, available_cpus() // settings.workers)


def repository_options(settings: Settings) -> RepositoryOptions:
    """What of the settings is the repository's business."""
    return RepositoryOptions(
        root=settings.repository,
        models=settings.models,
        default_model=settings.default_model,
        precision=None if settings.precision == "auto" else Precision(settings.precision),
        engine=EngineOptions(
            provider=Provider(settings.execution_provider),
            threads=settings.threads,
            cpus=cpu_share(settings),
            max_batch_size=settings.max_batch_size,
        ),
        max_queue_size=settings.max_queue_size,
        max_queue_delay_s=settings.max_queue_delay_ms / 1000,
        inference_timeout_s=settings.inference_timeout_s,
    )


def predict_limits(settings: Settings) -> PredictLimits:
    """What of the settings bounds a request."""
    return PredictLimits(
        body=BodyLimits(
            max_bytes=settings.max_body_bytes,
            timeout_s=settings.body_timeout_ms / 1000,
            max_held_bytes=settings.max_bytes_in_flight,
        ),
        max_images=settings.max_images_per_request,
        default_deadline_s=settings.default_deadline_ms / 1000,
        top_k=settings.top_k,
        decode=DecodeLimits(max_pixels=settings.max_pixels, formats=frozenset(settings.image_formats)),
    )
