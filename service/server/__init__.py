"""The process: listens, loads, serves, drains, ends.

::

    bind ─▶ listen ─▶ load · warm up · self-test (in a thread) ─▶ serve
             /livez 200 · /readyz 503 not_ready                    /readyz 200
    SIGTERM, SIGINT
      /readyz 503 at once ─ shutdown_delay_s, still serving ─▶ listener closes ─ shutdown_grace_s ─▶ exit 0
      (a second signal: no delay, no grace)

A connection ends with its answer once draining has begun, so clients go elsewhere by themselves.
"""

from service.server.connection import Connection, ConnectionLimits
from service.server.listener import bind
from service.server.process import Server, serve

__all__ = ["Connection", "ConnectionLimits", "Server", "bind", "serve"]
