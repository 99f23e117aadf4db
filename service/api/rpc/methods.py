"""What each method of the service does, and how each ends.

::

    call ─▶ key, rate ─▶ method ─▶ answer
              │             └ RequestError, or a failure nobody thought of ─▶ status, trailing metadata
              └ Unauthenticated, Forbidden, RateLimited ─▶ the same

A client that leaves, or whose deadline passes, has its call cancelled; its instances leave the line.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any, Protocol, TypeAlias

import grpc
from google.protobuf import message_factory

from service.access import Scope
from service.api.exchange import ClientLeft, Conversation
from service.api.health import Vitals
from service.api.inference import Inference, observe_stage, parse_timeout_s
from service.api.problems import status_of
from service.api.protocol.infer import infer, sooner
from service.api.protocol.routes import (
    load,
    model_description,
    ready_model,
    repository_entries,
    server_description,
)
from service.api.rpc import open_inference_pb2 as pb
from service.api.rpc.call import SERVICE, Call, Context
from service.api.rpc.messages import read_request, write_answer
from service.errors import InferenceFailed, ModelNotFound, NotReady, Reason, RequestError, ShuttingDown
from service.metrics import Metrics
from service.repository import Changes, Repository
from service.tracing import Trace

Method: TypeAlias = Callable[[Call, Any], Awaitable[Any]]


class Witness(Protocol):
    """Who hears what became of each call; `service.app.journal.Journal` is one."""

    def refused(self, exchange: Conversation, error: RequestError) -> None:
        """It ended with this error."""

    def failed(self, exchange: Conversation, reason: Reason) -> None:
        """An exception that nobody thought of ended it; called where it is handled."""

    def abandoned(self, exchange: Conversation, left: ClientLeft) -> None:
        """The client did not wait."""

    def ended(self, exchange: Conversation) -> None:
        """The last that is said of it."""


class Host(Vitals, Protocol):
    """What the methods need of the application."""

    @property
    def inference(self) -> Inference:
        """The road to the models."""

    @property
    def repository(self) -> Repository:
        """The models."""

    @property
    def changes(self) -> Changes:
        """What operators make of them."""

    @property
    def metrics(self) -> Metrics:
        """Where calls in flight are counted."""

    @property
    def journal(self) -> Witness:
        """Who is told."""

    def begin_trace(self, headers: Mapping[bytes, bytes]) -> Trace | None:
        """The trace of a prediction that begins now; None if it is not to be traced."""

    def admit(self, scope: Scope, headers: Mapping[bytes, bytes], address: str) -> None:
        """Let a request in, or say why not.

        Raises:
            Unauthenticated, Forbidden, RateLimited: Not this one, or not now.
        """


class Methods:
    """The methods, by their names in the protocol."""

    def __init__(self, host: Host) -> None:
        self._host = host

    def handlers(self) -> grpc.GenericRpcHandler:
        """Every method of the service, for the server."""
        return grpc.method_handlers_generic_handler(SERVICE, dict(self._handlers()))

    def _handlers(self) -> Iterator[tuple[str, grpc.RpcMethodHandler[Any, Any]]]:
        methods: dict[str, Method] = {
            "ServerLive": self.server_live,
            "ServerReady": self.server_ready,
            "ServerMetadata": self.server_metadata,
            "ModelReady": self.model_ready,
            "ModelMetadata": self.model_metadata,
            "ModelInfer": self.model_infer,
            "RepositoryIndex": self.repository_index,
            "RepositoryModelLoad": self.load,
            "RepositoryModelUnload": self.unload,
        }
        described = pb.DESCRIPTOR.services_by_name["GRPCInferenceService"].methods_by_name
        for name, method in methods.items():
            types = described[name].input_type, described[name].output_type
            request, reply = map(message_factory.GetMessageClass, types)
            yield (
                name,
                grpc.unary_unary_rpc_method_handler(
                    self._answering(name, method),
                    request_deserializer=request.FromString,
                    response_serializer=reply.SerializeToString,
                ),
            )

    def _answering(self, name: str, method: Method) -> Callable[[Any, Context], Awaitable[Any]]:
        """The method, with every way in which it can end."""
        journal, inflight = self._host.journal, self._host.metrics.inflight_requests

        async def answer(request: Any, context: Context) -> Any:
            call = Call(name, context)
            inflight.value += 1
            try:
                reply = await method(call, request)
                call.status = 200
                return reply
            except RequestError as error:
                refusal = error.without_frames()
                call.status = status_of(refusal)
                journal.refused(call, refusal)
            except (asyncio.CancelledError, ClientLeft):
                journal.abandoned(call, ClientLeft("queue"))
                raise
            except Exception:
                refusal = InferenceFailed("the service failed; its log has the cause under this request id")
                call.status = status_of(refusal)
                journal.failed(call, refusal.reason)
            finally:
                # Before it is told: who has heard a refusal finds it counted.
                inflight.value -= 1
                journal.ended(call)
            del request  # gRPC keeps this frame until garbage is collected
            return await call.refuse(refusal)

        return answer

    async def server_live(self, _call: Call, _request: pb.ServerLiveRequest) -> pb.ServerLiveResponse:
        """Whether the process works."""
        return pb.ServerLiveResponse(live=self._host.why_not_alive() is None)

    async def server_ready(self, _call: Call, _request: pb.ServerReadyRequest) -> pb.ServerReadyResponse:
        """Whether it predicts."""
        return pb.ServerReadyResponse(ready=self._host.why_not_ready() is None)

    async def server_metadata(
        self, _call: Call, _request: pb.ServerMetadataRequest
    ) -> pb.ServerMetadataResponse:
        """Which server this is."""
        return pb.ServerMetadataResponse(**server_description().model_dump())

    async def model_ready(self, _call: Call, request: pb.ModelReadyRequest) -> pb.ModelReadyResponse:
        """Whether a model predicts; false for one that there is not, as Triton's server says it."""
        try:
            ready_model(self._host.repository, request.name, request.version or None)
        except (ModelNotFound, NotReady, ShuttingDown):
            return pb.ModelReadyResponse(ready=False)
        return pb.ModelReadyResponse(ready=True)

    async def model_metadata(self, _call: Call, request: pb.ModelMetadataRequest) -> pb.ModelMetadataResponse:
        """Inputs and outputs of a model."""
        described = model_description(self._host.repository, request.name, request.version or None)
        return pb.ModelMetadataResponse(**described.model_dump())

    async def repository_index(
        self, _call: Call, request: pb.RepositoryIndexRequest
    ) -> pb.RepositoryIndexResponse:
        """Every version of every model."""
        entries = repository_entries(self._host.repository, ready_only=request.ready)
        return pb.RepositoryIndexResponse(
            models=[pb.RepositoryIndexResponse.ModelIndex(**entry.model_dump()) for entry in entries]
        )

    async def load(
        self, call: Call, request: pb.RepositoryModelLoadRequest
    ) -> pb.RepositoryModelLoadResponse:
        """Serve a model's newest good version."""
        self._host.admit(Scope.ADMIN, call.headers, call.address)
        await load(self._host.changes, request.model_name, request.parameters)
        return pb.RepositoryModelLoadResponse()

    async def unload(
        self, call: Call, request: pb.RepositoryModelUnloadRequest
    ) -> pb.RepositoryModelUnloadResponse:
        """Stop serving a model until it is loaded again."""
        self._host.admit(Scope.ADMIN, call.headers, call.address)
        await self._host.changes.unload(request.model_name)
        return pb.RepositoryModelUnloadResponse()

    async def model_infer(self, call: Call, message: pb.ModelInferRequest) -> pb.ModelInferResponse:
        """Tensors in, tensors out."""
        call.trace = self._host.begin_trace(call.headers)
        self._host.admit(Scope.PREDICT, call.headers, call.address)
        inference = self._host.inference
        model = inference.find(call, message.model_name, message.model_version or None)
        request = read_request(message)
        said_s = sooner(parse_timeout_s(call.headers.get(b"x-request-timeout-ms")), request.timeout_s)
        deadline = inference.deadline(call.started, sooner(said_s, call.patience_s))
        outputs = await infer(inference, call, model, request, deadline)
        started = time.monotonic()
        identity = message.id or call.request_id
        answer = write_answer(outputs, model=model.name, version=model.version, identity=identity)
        observe_stage(call, model, "serialize", started, time.monotonic() - started)
        return answer
