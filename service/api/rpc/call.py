"""One remote call: who asks, since when and until when, and how it is refused."""

from __future__ import annotations

import time
from typing import Any, Final, NoReturn

import grpc.aio
from google.protobuf.message import Message

from service.api.exchange import OnLeave, is_well_formed_id, make_request_id
from service.api.problems import retry_after_s
from service.api.rpc.statuses import GRPC_STATUSES
from service.errors import Reason, RequestError
from service.tracing import Trace, parse_traceparent

Context = grpc.aio.ServicerContext[Any, Message]

SERVICE: Final = "inference.GRPCInferenceService"
# gRPC's own retries wait for so long where a server says so.
_PUSHBACK: Final = "grpc-retry-pushback-ms"


class Call:
    """One call and its end; a `service.api.inference.Caller` and a `service.api.exchange.Conversation`.

    Attributes:
        request_id: Sent as metadata ``x-request-id``, or made.
        headers: The call's metadata, by lower-case name; the last of several equal ones.
        started: `time.monotonic` when it came.
        route: The method's path.
        status: The HTTP status of the same meaning; 0 until it ends.
        timings: Name and seconds of each stage.
        trace: Of this call; None where it is not traced.
        refused_images: None ever: the protocol knows no error of a single instance.
    """

    method: Final = "GRPC"

    def __init__(self, name: str, context: Context) -> None:
        self.started = time.monotonic()
        self.route = f"/{SERVICE}/{name}"
        self.status = 0
        self.timings: list[tuple[str, float]] = []
        self.trace: Trace | None = None
        self.refused_images: dict[Reason, int] = {}
        self.headers = {
            name.encode(): value if isinstance(value, bytes) else value.encode()
            for name, value in context.invocation_metadata() or ()
        }
        self._context = context
        given = self.headers.get(b"x-request-id", b"")
        self.request_id = given.decode() if is_well_formed_id(given) else make_request_id()

    def __repr__(self) -> str:
        return f"<Call {self.request_id} {self.route} {self.status or 'open'}>"

    @property
    def has_responded(self) -> bool:
        """Whether it has ended with an answer."""
        return self.status != 0

    @property
    def trace_id(self) -> str | None:
        """Of the trace that it belongs to, here or at its caller's."""
        if self.trace is not None:
            return self.trace.trace_id
        caller = parse_traceparent(self.headers.get(b"traceparent"))
        return None if caller is None else caller.trace_id

    @property
    def address(self) -> str:
        """Of the client, without its port."""
        peer = self._context.peer()  # ipv4:127.0.0.1:50000, ipv6:%5B::1%5D:50000
        return peer.partition(":")[2].rpartition(":")[0] or peer

    @property
    def patience_s(self) -> float | None:
        """Seconds until the client's deadline; None where it has none."""
        return self._context.time_remaining()

    def watch(self, on_leave: OnLeave) -> None:
        """Nothing to do: gRPC cancels the task of a call whose client left."""

    async def refuse(self, error: RequestError) -> NoReturn:
        """End the call with an error; what a program may want to know of it is in the trailing metadata.

        Raises:
            grpc.aio.AbortError: Always.
        """
        trailing = [("x-request-id", self.request_id), ("reason", error.reason.value)]
        seconds = retry_after_s(error)
        if seconds is not None:
            trailing += [("retry-after", str(seconds)), (_PUSHBACK, str(1000 * seconds))]
        await self._context.abort(GRPC_STATUSES[error.reason], error.detail, tuple(trailing))
