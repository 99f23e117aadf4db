"""The gRPC port of the process, where the setting ``grpc_port`` asks for one.

::

    parent    holds the port, bound with SO_REUSEPORT and not listening: nobody else gets it
    workers   each listens on it; the kernel deals connections out, by their addresses

The library is imported only here and below, and only then.
"""

from __future__ import annotations

import importlib
import socket
from contextlib import AbstractContextManager, nullcontext
from typing import TYPE_CHECKING

from service.errors import InvalidConfiguration
from service.server.listener import bound
from service.settings import Settings

if TYPE_CHECKING:
    from service.api.rpc.server import RpcServer
    from service.app import Application


def hold_port(settings: Settings) -> tuple[Settings, AbstractContextManager[object]]:
    """Settings with the port that was found (where any would do), and what holds it.

    Raises:
        InvalidConfiguration: The library is not installed, or the port is taken.
    """
    if settings.grpc_port is None:
        return settings, nullcontext()
    _require_library()
    bound(settings.host, settings.grpc_port).close()  # says who is there already; sharing would not
    held = bound(settings.host, settings.grpc_port, is_shared=True)
    return settings.model_copy(update={"grpc_port": _port(held)}), held


async def open_port(application: Application) -> RpcServer | None:
    """The server, listening; None where there is to be none.

    Raises:
        InvalidConfiguration: As `hold_port`.
    """
    settings = application.settings
    if settings.grpc_port is None:
        return None
    _require_library()
    from service.api.rpc.server import RpcServer

    server = RpcServer(
        application,
        max_message_bytes=settings.max_body_bytes,
        max_metadata_bytes=settings.max_header_bytes,
    )
    await server.start(settings.host, settings.grpc_port)
    return server


def _port(held: socket.socket) -> int:
    port: int = held.getsockname()[1]
    return port


def _require_library() -> None:
    try:
        importlib.import_module("grpc_health.v1.health")
        importlib.import_module("grpc_reflection.v1alpha.reflection")
    except ImportError as error:
        raise InvalidConfiguration(
            f"grpc_port is set, but {error.name} is not installed: pip install 'foldserve[grpc]'"
        ) from error
