"""The port of the gRPC interface: its methods, health and reflection."""

from __future__ import annotations

import asyncio
from typing import Final, TypeAlias

import grpc.aio
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from service.api.health import Vitals
from service.api.rpc.call import SERVICE
from service.api.rpc.methods import Host, Methods
from service.errors import InvalidConfiguration

_HealthContext: TypeAlias = grpc.aio.ServicerContext[
    health_pb2.HealthCheckRequest, health_pb2.HealthCheckResponse
]
# Who asks for the process as a whole, and who for this service.
_HEALTH_OF: Final = ("", SERVICE)


class _Health(health.aio.HealthServicer):
    """The library's health service; what it says is the application's readiness."""

    def __init__(self, vitals: Vitals) -> None:
        super().__init__()
        self._vitals = vitals
        self._is_ready: bool | None = None
        self._watches: set[asyncio.Task[None]] = set()

    async def refresh(self) -> None:
        """Say what is so now. Cheap where nothing has changed."""
        is_ready = self._vitals.why_not_ready() is None
        if is_ready == self._is_ready:
            return
        self._is_ready = is_ready
        states = health_pb2.HealthCheckResponse
        for service in _HEALTH_OF:
            await self.set(service, states.SERVING if is_ready else states.NOT_SERVING)

    async def Check(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: _HealthContext
    ) -> health_pb2.HealthCheckResponse:
        """One answer, of this moment."""
        await self.refresh()
        return await super().Check(request, context)

    async def Watch(  # noqa: N802 - gRPC's name
        self, request: health_pb2.HealthCheckRequest, context: _HealthContext
    ) -> None:
        """What is so now, and every change, until the client or the server ends it."""
        watch = asyncio.create_task(super().Watch(request, context))
        self._watches.add(watch)
        try:
            await asyncio.wait({watch})
            if not watch.cancelled():
                watch.result()
        finally:
            watch.cancel()
            self._watches.discard(watch)

    def end_watches(self) -> None:
        """Nobody would end them: they are no work that a server waits for."""
        for watch in self._watches:
            watch.cancel()


class RpcServer:
    """One process's server. Made, started and stopped on the application's event loop.

    Args:
        host: The application.
        max_message_bytes: Larger requests are refused by the library (RESOURCE_EXHAUSTED).
        max_metadata_bytes: Of one call; larger ones likewise.
    """

    def __init__(self, host: Host, *, max_message_bytes: int, max_metadata_bytes: int) -> None:
        self._server = grpc.aio.server(
            options=(
                ("grpc.max_receive_message_length", max_message_bytes),
                ("grpc.max_send_message_length", -1),
                ("grpc.max_metadata_size", max_metadata_bytes),
                # Workers share the port; the process that started them holds it.
                ("grpc.so_reuseport", 1),
            )
        )
        self._server.add_generic_rpc_handlers((Methods(host).handlers(),))
        self._health = _Health(host)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection(
            (SERVICE, health.SERVICE_NAME, reflection.SERVICE_NAME), self._server
        )

    async def start(self, host: str, port: int) -> int:
        """Listen; the port, which was found where 0 was given.

        Raises:
            InvalidConfiguration: The address cannot be had.
        """
        address = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        try:
            port = self._server.add_insecure_port(address)
        except RuntimeError as error:
            raise InvalidConfiguration(f"cannot listen for gRPC on {address}: {error}") from error
        await self.say_health()
        await self._server.start()
        return port

    async def say_health(self) -> None:
        """Tell those who watch the health service, if anything has changed."""
        await self._health.refresh()

    async def stop(self, grace_s: float) -> None:
        """Take no new call, finish those that run within the grace, cancel the others."""
        self._health.end_watches()
        await self._server.stop(grace_s)
