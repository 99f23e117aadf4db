"""What became of each request: counted, traced, and written where somebody should know."""

from __future__ import annotations

import logging
import time
from typing import Final

from service.api.exchange import ClientLeft, Conversation
from service.api.problems import status_of
from service.errors import Reason, RequestError
from service.logs import Throttle
from service.metrics import Metrics

logger = logging.getLogger(__name__)

# Methods outside the closed set of a metric label count as this.
_OTHER_METHOD: Final = "OTHER"
# What stands in the place of a method where gRPC carried the request.
_GRPC: Final = "GRPC"
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", _GRPC})
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


class Journal:
    """The metrics and the log of one application's requests. The log's level is read when it is made.

    Attributes:
        answered: Requests, however they ended.
        left: Requests whose client did not wait. With those answered, all that there were.
        is_crowded: Whether somebody was refused for overload; taken back by who looks after it.
        overloaded_at: `time.monotonic` of the last such refusal.
    """

    def __init__(self, metrics: Metrics) -> None:
        self.answered = 0
        self.left = 0
        self.is_crowded = False
        self.overloaded_at = 0.0
        self._metrics = metrics
        self._throttle = Throttle()
        self._tells_all = logger.isEnabledFor(logging.DEBUG)

    def refused(self, exchange: Conversation, error: RequestError) -> None:
        """A request ended with this error."""
        self._metrics.request_rejected(error.reason)
        if error.reason is Reason.OVERLOADED:
            self.is_crowded = True
            self.overloaded_at = time.monotonic()
        if exchange.trace is not None:
            exchange.trace.attributes["error.type"] = error.reason.value
        held_back = self._throttle.admit(error.reason) if error.reason in _CROWD_REASONS else 0
        if held_back is None:
            return
        status = status_of(error)
        fields = {"reason": error.reason.value, "status": status, **_fields(exchange)}
        if held_back:
            fields["held_back"] = held_back  # of this reason, since its last line
        if status == 500 and error.__cause__ is not None:
            fields["cause"] = repr(error.__cause__)
        level = logging.WARNING if status >= 500 else logging.INFO
        logger.log(level, "refused: %s", error.detail, extra={"fields": fields})

    def refused_at_door(
        self, route: str, method: str, error: RequestError, request_id: str, started: float
    ) -> None:
        """The server refused a whole request under pressure."""
        self.refused_early(error, request_id)
        self._metrics.request_finished(route, method, status_of(error), time.monotonic() - started)
        self.answered += 1

    def refused_early(self, error: RequestError, request_id: str) -> None:
        """The server refused something before there was a request that it could have handed on."""
        self._metrics.request_rejected(error.reason)
        held_back = self._throttle.admit(error.reason)
        if held_back is not None:
            fields = {"reason": error.reason.value, "request_id": request_id, "held_back": held_back}
            logger.info("refused: %s", error.detail, extra={"fields": fields})

    def failed(self, exchange: Conversation, reason: Reason) -> None:
        """An exception that nobody thought of ended a request; called where it is handled."""
        self._metrics.request_rejected(reason)
        if exchange.trace is not None:
            exchange.trace.attributes["error.type"] = reason.value
        logger.exception("request failed", extra={"fields": {"reason": reason.value, **_fields(exchange)}})

    def abandoned(self, exchange: Conversation, left: ClientLeft) -> None:
        """The client did not wait for its answer."""
        if left.stage == "receive":
            self._metrics.instances_cancelled("receive")
        held_back = self._throttle.admit(_CLIENT_LEFT)
        if held_back is not None:
            fields = {"stage": left.stage, **_fields(exchange), "held_back": held_back}
            logger.info("client left", extra={"fields": fields})

    def ended(self, exchange: Conversation) -> None:
        """The last that is said of every request."""
        seconds = time.monotonic() - exchange.started
        if exchange.trace is not None:
            name, attributes = _span(exchange)
            exchange.trace.finish(
                name, exchange.started, seconds, attributes, is_failure=exchange.status >= 500
            )
        status = exchange.status
        if not status:
            self.left += 1
            self._metrics.request_left()
            return
        self.answered += 1
        method = exchange.method
        if method not in _METHODS:
            method = _OTHER_METHOD
        trace_id = None if exchange.trace is None else exchange.trace.trace_id
        self._metrics.request_finished(exchange.route, method, status, seconds, trace_id)
        if exchange.refused_images or self._tells_all:
            self._tell(exchange, seconds)

    def _tell(self, exchange: Conversation, seconds: float) -> None:
        for reason, n in exchange.refused_images.items():
            fields = {"reason": reason.value, "images": n, **_fields(exchange)}
            logger.info("images refused", extra={"fields": fields})
        if self._tells_all:
            stages = {f"{name}_s": round(stage_s, 6) for name, stage_s in exchange.timings}
            fields = {
                "status": exchange.status,
                "seconds": round(seconds, 6),
                **stages,
                **_fields(exchange),
            }
            logger.debug("answered", extra={"fields": fields})


def _fields(exchange: Conversation) -> dict[str, object]:
    fields: dict[str, object] = {"request_id": exchange.request_id}
    if exchange.trace_id is not None:
        fields["trace_id"] = exchange.trace_id
    return {**fields, "method": exchange.method, "route": exchange.route}


def _span(exchange: Conversation) -> tuple[str, dict[str, str | int]]:
    """Name and attributes of a request's span, as OpenTelemetry has them for HTTP and for gRPC."""
    own = {"foldserve.request_id": exchange.request_id}
    if exchange.method == _GRPC:
        service, _, method = exchange.route.removeprefix("/").partition("/")
        return f"{service}/{method}", {
            "rpc.system": "grpc",
            "rpc.service": service,
            "rpc.method": method,
            **own,
        }
    return f"{exchange.method} {exchange.route}", {
        "http.request.method": exchange.method,
        "http.route": exchange.route,
        "http.response.status_code": exchange.status,
        **own,
    }
