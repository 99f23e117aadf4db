"""The process: listens, loads, serves, drains, ends.

::

    bind ─▶ listen ─▶ load · warm up · self-test (in a thread) ─▶ serve
             /livez 200 · /readyz 503 not_ready                    /readyz 200
    SIGTERM, SIGINT
      /readyz 503 at once ─ shutdown_delay_s, still serving ─▶ listener closes ─ shutdown_grace_s ─▶ exit 0
      (a second signal: no delay, no grace)

With several workers, `fleet` is the parent and `worker` each of them; else `process` is all there is.
A connection ends with its answer once draining has begun, so clients go elsewhere by themselves.
"""

from __future__ import annotations

import asyncio
import logging

import uvloop

from service.server import fleet
from service.server.fleet import default_workers, most_workers
from service.server.listener import bind, limit_unread_answers, raise_descriptor_limit
from service.server.memory import keep_level
from service.server.rpc import hold_port
from service.server.signals import hold_signals
from service.server.tls import tls_context
from service.settings import Settings

__all__ = ["bind", "default_workers", "most_workers", "serve", "tls_context"]

logger = logging.getLogger(__name__)


def serve(settings: Settings) -> None:
    """Serve until a signal comes: alone, or with several workers.

    Raises:
        InvalidConfiguration: The address is taken, the certificate cannot be used, or the settings do not fit
            the repository.
        ModelRejected: A model that should be served has no version that may.
        ProviderUnavailable: The execution provider that was demanded is not there.
        FoldserveError: Any of these, in a worker.
    """
    hold_signals()
    keep_level()
    scheme = "http" if tls_context(settings) is None else "https"
    raise_descriptor_limit(settings.max_connections)
    settings, held = hold_port(settings)
    with held, bind(settings.host, settings.port) as listener:
        limit_unread_answers(listener, settings.write_timeout_ms)
        host, port = listener.getsockname()[:2]
        logger.info("listening on %s://%s:%d", scheme, f"[{host}]" if ":" in host else host, port)
        if settings.grpc_port is not None:
            logger.info("listening for gRPC on port %d", settings.grpc_port)
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            if fleet.suits(settings):
                runner.run(fleet.serve_with_workers(settings, listener))
            else:
                from service.server.process import serve_alone  # a parent of workers does without

                runner.run(serve_alone(settings, listener))
