"""The application: its life, and the way of each request."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from enum import StrEnum
from typing import Final, TypeAlias

from fastapi import FastAPI
from starlette.types import Receive, Scope, Send

from service import __version__, access
from service.api.administration import administration_router
from service.api.exchange import ClientLeft, Exchange
from service.api.exposition import metrics_router
from service.api.health import health_router
from service.api.inference import Inference
from service.api.pages import pages_router
from service.api.problems import FAILURES
from service.api.protocol.routes import protocol_router
from service.app.framework import Framework, unexpected_failure
from service.app.journal import Journal
from service.app.lean import METHOD, LeanRoutes
from service.app.scopes import scope_of
from service.app.wiring import (
    cpu_share,
    lean_routes,
    make_access,
    make_tracer,
    repository_options,
    request_limits,
)
from service.errors import NotReady, RequestError, ShuttingDown
from service.metrics import Metrics, Snapshot, render_snapshot, snapshot, triton_names
from service.repository import Changes, Repository, RepositoryOptions
from service.settings import Settings
from service.tracing import Trace

# A collector that does not answer must not hold up the end of the process.
_LAST_TRACES_S: Final = 2.0

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
        gather: The metrics of all workers, where this may be one of several.

    Attributes:
        phase: Where it is in its life.
        metrics: Of this application alone.
        repository: The models.
        changes: What operators make of them.
        journal: What became of its requests.
        inference: The road to the models.
        has_company_to_come: Whether this is one of several workers and not all of them have been ready yet.
    """

    def __init__(
        self,
        settings: Settings,
        make_repository: MakeRepository = Repository,
        gather: Gather | None = None,
    ) -> None:
        self.settings = settings
        self.phase = Phase.LOADING
        self.has_company_to_come = False
        self.metrics = Metrics(version=__version__, commit=settings.commit)
        self.metrics.watch_ready(lambda: self.why_not_ready() is None)
        self.journal = Journal(self.metrics)
        self.repository = make_repository(
            repository_options(settings, is_watched=gather is not None), self.metrics
        )
        self.changes = Changes(self.repository)
        # Decoding releases the GIL; more threads than CPUs would only take turns.
        self._pool = ThreadPoolExecutor(cpu_share(settings.workers), thread_name_prefix="decode")
        self._gather = gather
        self._access = make_access(settings, self.metrics)
        self._tracer = make_tracer(settings, self.metrics)
        self.inference = Inference(self.repository.resolve, request_limits(settings), self._pool)
        routers = (
            health_router(self),
            metrics_router(self.scrape),
            pages_router(self.repository),
            administration_router(self.repository, self.changes, self._count),
            protocol_router(self, self.repository, self.changes),
        )
        lean = lean_routes(self.inference, self.metrics)
        self._lean = LeanRoutes(lean)
        for route in lean:
            self.metrics.expect_failures(route.template, METHOD, sorted(FAILURES))
        self._framework = Framework(self.journal, self.inference.bodies, routers, lean, self._lifespan)

    def __repr__(self) -> str:
        return f"<Application {self.phase}: {self.repository!r}>"

    @property
    def framework(self) -> FastAPI:
        """The FastAPI application with all routes."""
        return self._framework.app

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
        if self._tracer is not None:
            await asyncio.to_thread(self._tracer.close, _LAST_TRACES_S)

    def why_not_alive(self) -> RequestError | None:
        """Why only a restart helps; None while the process works."""
        return None if self.repository.is_alive else NotReady("an inference engine died or hangs")

    def meet(self, workers: int) -> None:
        """All workers of the service are ready; they are so many, with this one."""
        self.has_company_to_come = False
        if workers == 1:
            self._gather = None
        else:
            self.repository.share_cpus(cpu_share(workers))

    def why_not_ready(self) -> RequestError | None:
        """Why no request should be sent to the service now; None while predictions are answered.

        Clients keep their connections: those that came before the last worker was ready would all stay with
        the first.
        """
        if self.has_company_to_come and self.phase is Phase.SERVING:
            return self.why_not_able() or NotReady("other workers load their models")
        return self.why_not_able()

    def why_not_able(self) -> RequestError | None:
        """Why this process cannot predict; None while it can."""
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
        whole = await self._count()
        if self.settings.triton_metrics:
            whole = {**whole, **triton_names(whole)}
        return render_snapshot(whole, openmetrics=openmetrics)

    async def _count(self) -> Snapshot:
        """What the metrics of the whole service say."""
        return snapshot(self.metrics) if self._gather is None else await self._gather()

    @asynccontextmanager
    async def _lifespan(self, _: FastAPI) -> AsyncIterator[None]:
        """Under a server other than `service.server`: load before, close after."""
        await self.load()
        stop_watching = self.metrics.watch_event_loop()
        yield
        stop_watching()
        await self.close(self.settings.shutdown_grace_s)

    # Requests.

    @property
    def admits_anybody(self) -> bool:
        """Whether nobody has to show a key or to keep to a rate, and connections stay open."""
        return self._access is None and self.phase is Phase.SERVING

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """The ASGI entry point."""
        if scope["type"] != "http":
            await self.framework(scope, receive, send)
            return
        exchange = Exchange(scope, receive, send)
        exchange.must_close = self.phase in (Phase.DRAINING, Phase.CLOSED)
        inflight = self.metrics.inflight_requests
        inflight.value += 1
        try:
            await self._answer(exchange)
        except ClientLeft as left:
            self.journal.abandoned(exchange, left)
        finally:
            inflight.value -= 1
            exchange.close()
            self.journal.ended(exchange)

    async def _answer(self, exchange: Exchange) -> None:
        """Dispatch, and answer every way in which that can fail."""
        try:
            await self._dispatch(exchange)
        except RequestError as error:
            await self._refuse(exchange, error)
            error.without_frames()
        except asyncio.CancelledError:  # the grace is over: the server cancels what still runs
            await self._refuse(exchange, ShuttingDown("the process shut down before this was answered"))
        except ClientLeft:
            raise
        except Exception:
            await self._fail(exchange)

    async def _dispatch(self, exchange: Exchange) -> None:
        route = self._lean.find(exchange)
        if self._tracer is not None and route is not None:
            exchange.trace = self.begin_trace(exchange.headers)
        path = exchange.scope["path"]
        scope = access.Scope.PREDICT if route is not None else scope_of(exchange.method, path)
        if scope is not None:
            self.admit(scope, exchange.headers, _address(exchange.scope))
        if route is not None and exchange.method == METHOD:
            await route.endpoint(exchange)
        else:
            await self._framework(exchange)

    def begin_trace(self, headers: Mapping[bytes, bytes]) -> Trace | None:
        """The trace of a prediction that begins now; None if it is not to be traced."""
        return None if self._tracer is None else self._tracer.begin(headers.get(b"traceparent"))

    def admit(self, scope: access.Scope, headers: Mapping[bytes, bytes], address: str) -> None:
        """Let a request in, or say why not; see `service.access.Access.admit`.

        Raises:
            Unauthenticated, Forbidden, RateLimited: Not this one, or not now.
        """
        if self._access is not None:
            self._access.admit(scope, headers, address)
        elif scope is access.Scope.ADMIN:
            raise access.no_administration()

    async def _refuse(self, exchange: Exchange, error: RequestError) -> None:
        self.journal.refused(exchange, error)
        if not exchange.has_responded:
            await exchange.refuse(error)

    async def _fail(self, exchange: Exchange) -> None:
        """Something nobody thought of: log it whole, tell the client nothing of it."""
        error = unexpected_failure()
        self.journal.failed(exchange, error.reason)
        if not exchange.has_responded:
            await exchange.refuse(error)


def _address(scope: Scope) -> str:
    client = scope.get("client")
    return client[0] if client else "unknown"
