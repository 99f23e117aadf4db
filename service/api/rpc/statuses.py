"""The one table from reasons to gRPC's statuses.

Source: gRPC, "Status codes and their use in gRPC": `UNAVAILABLE` is what a client may send again as it is.
"""

from __future__ import annotations

from types import MappingProxyType
from typing import Final

from grpc import StatusCode

from service.errors import Reason

GRPC_STATUSES: Final = MappingProxyType(
    {
        Reason.MALFORMED_BODY: StatusCode.INVALID_ARGUMENT,
        Reason.INVALID_PARAMETER: StatusCode.INVALID_ARGUMENT,
        Reason.UNAUTHENTICATED: StatusCode.UNAUTHENTICATED,
        Reason.FORBIDDEN: StatusCode.PERMISSION_DENIED,
        Reason.MODEL_NOT_FOUND: StatusCode.NOT_FOUND,
        Reason.ROUTE_NOT_FOUND: StatusCode.UNIMPLEMENTED,
        Reason.METHOD_NOT_ALLOWED: StatusCode.UNIMPLEMENTED,
        Reason.SLOW_CLIENT: StatusCode.DEADLINE_EXCEEDED,
        Reason.BODY_TOO_LARGE: StatusCode.RESOURCE_EXHAUSTED,
        Reason.TOO_MANY_PIXELS: StatusCode.INVALID_ARGUMENT,
        Reason.TOO_MANY_IMAGES: StatusCode.INVALID_ARGUMENT,
        Reason.UNSUPPORTED_MEDIA_TYPE: StatusCode.INVALID_ARGUMENT,
        Reason.INVALID_INSTANCE: StatusCode.INVALID_ARGUMENT,
        Reason.UNDECODABLE_IMAGE: StatusCode.INVALID_ARGUMENT,
        Reason.RATE_LIMITED: StatusCode.RESOURCE_EXHAUSTED,
        Reason.HEADERS_TOO_LARGE: StatusCode.RESOURCE_EXHAUSTED,
        Reason.INFERENCE_FAILED: StatusCode.INTERNAL,
        Reason.OVERLOADED: StatusCode.UNAVAILABLE,
        Reason.NOT_READY: StatusCode.UNAVAILABLE,
        Reason.SHUTTING_DOWN: StatusCode.UNAVAILABLE,
        Reason.DEADLINE_EXCEEDED: StatusCode.DEADLINE_EXCEEDED,
    }
)
