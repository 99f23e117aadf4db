"""Every way the service can fail, as one tree.

::

    FoldserveError
    ├── RequestError                    one request's fault or fate; carries a `Reason`
    │   ├── MalformedBody               malformed_body
    │   ├── InvalidParameter            invalid_parameter
    │   ├── Unauthenticated             unauthenticated
    │   ├── Forbidden                   forbidden
    │   ├── ModelNotFound               model_not_found
    │   ├── RouteNotFound               route_not_found
    │   ├── MethodNotAllowed            method_not_allowed
    │   ├── SlowClient                  slow_client
    │   ├── BodyTooLarge                body_too_large
    │   ├── TooManyPixels               too_many_pixels
    │   ├── TooManyImages               too_many_images
    │   ├── UnsupportedMediaType        unsupported_media_type
    │   ├── InvalidInstance             invalid_instance
    │   │   └── InvalidTensor           invalid_instance    (as the inference protocols say it)
    │   ├── UndecodableImage            undecodable_image
    │   ├── RateLimited                 rate_limited        (+ retry_after_s)
    │   ├── HeadersTooLarge             headers_too_large
    │   ├── Overloaded                  overloaded          (+ retry_after_s)
    │   ├── NotReady                    not_ready
    │   ├── ShuttingDown                shutting_down
    │   ├── DeadlineExceeded            deadline_exceeded
    │   └── InferenceFailed             inference_failed
    │       └── EngineLost              inference_failed    (no later batch can run either)
    ├── ModelRejected                   a model file that must not serve; carries a `ReloadResult`
    │   ├── InvalidFile                 invalid_file        (unreadable, truncated, wrong checksum)
    │   ├── ContractMismatch            contract_mismatch   (metadata and graph disagree)
    │   ├── SelfTestFailed              selftest_failed     (wrong logits for its own instances)
    │   └── LoadFailed                  load_failed         (the runtime refused it)
    │       └── FetchFailed             load_failed         (a remote repository did not give it)
    ├── ProviderUnavailable             an execution provider that was demanded and is not there
    ├── RemoteUnavailable               a remote repository that does not answer
    ├── InvalidPlan                     a `serving.json` that is none
    └── InvalidConfiguration            settings that contradict each other or the machine

The reason is used as it stands in the response body, the log line and the metric label. HTTP
statuses are no business of this module: they live in one table at the edge (`service.api`).
"""

from __future__ import annotations

from enum import StrEnum
from typing import ClassVar, Final, Self

# Of what is said of one error, in its answer and in the log.
_MOST_CHARACTERS: Final = 1000


class Reason(StrEnum):
    """Why a request was not answered with a prediction. Closed: clients and dashboards rely on it."""

    MALFORMED_BODY = "malformed_body"
    INVALID_PARAMETER = "invalid_parameter"
    UNAUTHENTICATED = "unauthenticated"
    FORBIDDEN = "forbidden"
    MODEL_NOT_FOUND = "model_not_found"
    ROUTE_NOT_FOUND = "route_not_found"
    METHOD_NOT_ALLOWED = "method_not_allowed"
    SLOW_CLIENT = "slow_client"
    BODY_TOO_LARGE = "body_too_large"
    TOO_MANY_PIXELS = "too_many_pixels"
    TOO_MANY_IMAGES = "too_many_images"
    UNSUPPORTED_MEDIA_TYPE = "unsupported_media_type"
    INVALID_INSTANCE = "invalid_instance"
    UNDECODABLE_IMAGE = "undecodable_image"
    RATE_LIMITED = "rate_limited"
    HEADERS_TOO_LARGE = "headers_too_large"
    OVERLOADED = "overloaded"
    NOT_READY = "not_ready"
    SHUTTING_DOWN = "shutting_down"
    DEADLINE_EXCEEDED = "deadline_exceeded"
    INFERENCE_FAILED = "inference_failed"


class ReloadResult(StrEnum):
    """How loading one model version ended (the label of ``foldserve_reloads_total``)."""

    SUCCESS = "success"
    INVALID_FILE = "invalid_file"
    CONTRACT_MISMATCH = "contract_mismatch"
    SELFTEST_FAILED = "selftest_failed"
    LOAD_FAILED = "load_failed"


class FoldserveError(Exception):
    """The root: everything the service raises on purpose."""


class RequestError(FoldserveError):
    """A request that ends without a prediction.

    Args:
        detail: One sentence for the client: the value that was wrong and what would be right.
    """

    reason: ClassVar[Reason]

    def __init__(self, detail: str) -> None:
        # It may quote a client: at any length, and with halves of characters, which no answer can hold.
        if len(detail) > _MOST_CHARACTERS:
            detail = detail[:_MOST_CHARACTERS] + "…"
        self.detail = detail.encode(errors="backslashreplace").decode()
        super().__init__(self.detail)

    def without_frames(self) -> Self:
        """This error, when it has been raised for the last time, without the frames that it went through.

        They know the request's body, and one of them knows the error: until garbage is collected none of
        them would go.
        """
        error: BaseException | None = self
        while error is not None:
            error.__traceback__ = None
            error = error.__cause__ or error.__context__
        return self


class MalformedBody(RequestError):
    """The body is empty or not what its media type says it is."""

    reason = Reason.MALFORMED_BODY


class InvalidParameter(RequestError):
    """A query parameter or header has an impossible value."""

    reason = Reason.INVALID_PARAMETER


class Unauthenticated(RequestError):
    """No API key, or one nobody knows."""

    reason = Reason.UNAUTHENTICATED


class Forbidden(RequestError):
    """A known API key without the scope for this route."""

    reason = Reason.FORBIDDEN


class ModelNotFound(RequestError):
    """No such model, or no such version of it."""

    reason = Reason.MODEL_NOT_FOUND


class RouteNotFound(RequestError):
    """No such path."""

    reason = Reason.ROUTE_NOT_FOUND


class MethodNotAllowed(RequestError):
    """The path exists, but not for this method."""

    reason = Reason.METHOD_NOT_ALLOWED


class SlowClient(RequestError):
    """Headers or body came too slowly."""

    reason = Reason.SLOW_CLIENT


class BodyTooLarge(RequestError):
    """The body exceeds ``max_body_bytes``."""

    reason = Reason.BODY_TOO_LARGE


class TooManyPixels(RequestError):
    """An image's header announces more than ``max_pixels`` pixels."""

    reason = Reason.TOO_MANY_PIXELS


class TooManyImages(RequestError):
    """A request carries more than ``max_images_per_request`` images."""

    reason = Reason.TOO_MANY_IMAGES


class UnsupportedMediaType(RequestError):
    """A body or an image format that is not served."""

    reason = Reason.UNSUPPORTED_MEDIA_TYPE


class InvalidInstance(RequestError):
    """One instance has the wrong encoding, shape, datatype or name."""

    reason = Reason.INVALID_INSTANCE


class InvalidTensor(InvalidInstance):
    """A tensor of an inference protocol has the wrong name, datatype, shape or content."""


class UndecodableImage(RequestError):
    """The bytes are no image, or a damaged one."""

    reason = Reason.UNDECODABLE_IMAGE


class _Retryable(RequestError):
    """A refusal that says when to come back.

    Args:
        retry_after_s: Seconds until a new attempt has a chance; > 0.
    """

    def __init__(self, detail: str, retry_after_s: float) -> None:
        super().__init__(detail)
        self.retry_after_s = retry_after_s


class RateLimited(_Retryable):
    """The client asks more often than it may."""

    reason = Reason.RATE_LIMITED


class HeadersTooLarge(RequestError):
    """The request's headers exceed the limit."""

    reason = Reason.HEADERS_TOO_LARGE


class Overloaded(_Retryable):
    """The queue is full, or the wait would exceed the deadline."""

    reason = Reason.OVERLOADED


class NotReady(RequestError):
    """No model can predict yet, or any more."""

    reason = Reason.NOT_READY


class ShuttingDown(RequestError):
    """The process is draining and takes no new work."""

    reason = Reason.SHUTTING_DOWN


class DeadlineExceeded(RequestError):
    """The request's deadline passed before its inference began."""

    reason = Reason.DEADLINE_EXCEEDED


class InferenceFailed(RequestError):
    """The engine raised. The cause is logged, never sent."""

    reason = Reason.INFERENCE_FAILED


class EngineLost(InferenceFailed):
    """The engine raised, and will from now on: only a new process helps."""


class ModelRejected(FoldserveError):
    """A model version that must not serve. The message names the file, the value and the remedy."""

    result: ClassVar[ReloadResult]


class InvalidFile(ModelRejected):
    """Unreadable, truncated, or not the bytes its checksum promises."""

    result = ReloadResult.INVALID_FILE


class ContractMismatch(ModelRejected):
    """Metadata missing, of another schema, or at odds with the graph."""

    result = ReloadResult.CONTRACT_MISMATCH


class SelfTestFailed(ModelRejected):
    """The session's logits for the file's own instances are not those in the file."""

    result = ReloadResult.SELFTEST_FAILED


class LoadFailed(ModelRejected):
    """The runtime could not build a session from the file."""

    result = ReloadResult.LOAD_FAILED


class FetchFailed(LoadFailed):
    """A remote repository did not give the file now. Not the version's fault: the next look tries again."""


class ProviderUnavailable(FoldserveError):
    """An execution provider was demanded and the session did not get it."""


class RemoteUnavailable(FoldserveError):
    """A remote repository cannot be listed, read or written now."""


class InvalidConfiguration(FoldserveError):
    """Settings that contradict each other or the machine."""


class InvalidPlan(FoldserveError):
    """A model's ``serving.json`` that cannot be read or is not of its form."""
