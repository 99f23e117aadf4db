"""A client for ``/predict``: images in, predictions or typed errors out. Needs the extra ``client`` (httpx).

::

    predict ─▶ attempt ─▶ answer ─▶ Prediction, Answer
                 ▲  └ RequestError of its reason ── overloaded, not_ready, shutting_down, rate_limited,
                 └──── wait (Retry-After) ◀──────── or nobody answered ─▶ again, while there is time and trust

Predicting changes nothing, so a request may be sent again when the service refused it or the connection
broke. A request that was being worked on when its time ran out is not: it would be worked on twice.

    >>> from service.client import Client
    >>> with Client(url, timeout_s=5) as client:
    ...     prediction = client.predict(image, top_k=2)
    ...     answer = client.predict_many([image, b"no image"])
    >>> prediction.label, len(prediction.top)
    ('bird', 2)
    >>> [type(each).__name__ for each in answer.predictions]
    ['Prediction', 'UndecodableImage']

`AsyncClient` is the same with ``async with`` and ``await``. Errors are those of `service.errors`, one class a
reason, so that ``except Overloaded`` says what it means:

    >>> from service.errors import ModelNotFound
    >>> with Client(url) as client:
    ...     try:
    ...         client.predict(image, model="none")
    ...     except ModelNotFound as error:
    ...         print(error.reason, "-", error)
    model_not_found - no model 'none'; there is: tiny

Source: RFC 9457 (problem details), RFC 9110 section 10.2.3 (Retry-After).
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, NoReturn, Self, TypeAlias

import httpx

from service.errors import (
    DeadlineExceeded,
    FoldserveError,
    InvalidTensor,
    NotReady,
    Overloaded,
    RateLimited,
    Reason,
    RequestError,
    ShuttingDown,
)

# What a second attempt may cure.
_PASSING: Final = (Overloaded, RateLimited, NotReady, ShuttingDown)
# Without a Retry-After: up to this, doubled each time, and drawn at random so that clients come one by one.
_BACKOFF_S: Final = 0.1
_MAX_BACKOFF_S: Final = 5.0

Image: TypeAlias = bytes | memoryview


class Unreachable(FoldserveError):
    """Nobody answered at all: no connection, or it broke."""


class UnexpectedAnswer(FoldserveError):
    """Somebody answered, but not this service: a proxy, another server."""


@dataclass(frozen=True, slots=True)
class ScoredLabel:
    """One class and how probable it is."""

    label: str
    index: int
    probability: float


@dataclass(frozen=True, slots=True)
class Prediction:
    """The most probable class of one image, and the runners-up.

    Attributes:
        top: Most probable first.
        labels: Multi-label models only: every label from the model's threshold on.
    """

    label: str
    index: int
    probability: float
    top: tuple[ScoredLabel, ...]
    labels: tuple[ScoredLabel, ...] | None = None


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of a request.

    Attributes:
        predictions: In the order of the images; the error of one that has no prediction, in its place.
    """

    model: str
    version: str
    request_id: str
    predictions: tuple[Prediction | RequestError, ...]


class _Requests:
    """What both clients say and understand; no I/O.

    Args:
        url: Of the service.
        api_key: Sent with every request.
        timeout_s: For a request with all its attempts.
        retries: How often it is sent again, at most.
    """

    def __init__(self, url: str, *, api_key: str | None, timeout_s: float, retries: int) -> None:
        self.url = url.rstrip("/")
        self._headers = {} if api_key is None else {"authorization": f"Bearer {api_key}"}
        self._timeout_s = timeout_s
        self._retries = retries

    def predict(self, images: Sequence[Image], **query: str | int | None) -> dict[str, Any]:
        """Arguments of the POST, but for what changes from attempt to attempt."""
        given = {name: value for name, value in query.items() if value is not None}
        if len(images) == 1:
            return {"params": given, "content": bytes(images[0])}
        files = [("images", (str(position), bytes(image))) for position, image in enumerate(images)]
        return {"params": given, "files": files}

    def effort(self) -> _Effort:
        """A request's attempts."""
        return _Effort(self._headers, self._timeout_s, self._retries)


class _Effort:
    """One request's attempts: how long they may still take, and whether a failure is worth another one."""

    def __init__(self, headers: Mapping[str, str], timeout_s: float, retries: int) -> None:
        self._headers = headers
        self._timeout_s = timeout_s
        self._ends_at = time.monotonic() + timeout_s
        self._retries = retries
        self._failures = 0
        self._retry_after = ""

    @property
    def left_s(self) -> float:
        """Seconds; at least a millisecond, which the service can be told."""
        return max(0.001, self._ends_at - time.monotonic())

    def options(self) -> dict[str, Any]:
        """Arguments of the next attempt; the service hears how long the client will wait."""
        self._retry_after = ""
        patience = {"x-request-timeout-ms": str(max(1, int(self.left_s * 1000)))}
        return {"headers": {**self._headers, **patience}, "timeout": self.left_s}

    def heard(self, response: httpx.Response) -> httpx.Response:
        """The response, after noting when it says to come back."""
        self._retry_after = response.headers.get("retry-after", "")
        return response

    def wait_s(self, failure: Exception) -> float:
        """How long to wait before the next attempt.

        Raises:
            FoldserveError: There is none: waiting does not cure it, or there is no time or trust left.
        """
        error = self._translated(failure)
        self._failures += 1
        wait_s = self._pause_s()
        is_passing = isinstance(error, (*_PASSING, Unreachable))
        if not is_passing or self._failures > self._retries or wait_s >= self._ends_at - time.monotonic():
            raise error from (None if error is failure else failure)
        return wait_s

    def _translated(self, failure: Exception) -> FoldserveError:
        if isinstance(failure, FoldserveError):
            return failure
        if isinstance(failure, httpx.TimeoutException) and not isinstance(failure, httpx.ConnectTimeout):
            return DeadlineExceeded(f"no answer within {self._timeout_s:g} s")
        return Unreachable(f"nobody answered: {failure!r}")

    def _pause_s(self) -> float:
        if self._retry_after.isdecimal():
            return float(self._retry_after)
        longest_s = min(_MAX_BACKOFF_S, _BACKOFF_S * 2 ** (self._failures - 1))
        return random.uniform(longest_s / 2, longest_s)  # noqa: S311 - spreads clients, hides nothing


class Client:
    """Asks a service, from threads. Closed by its ``with`` block, or by `close`.

    Args:
        url: Of the service, as ``http://127.0.0.1:8000``.
        api_key: Where the service wants one.
        timeout_s: For each request with all its attempts; the service is told, and does no work in vain.
        retries: How often a request is sent again, at most, where that is safe.
        transport: Another way to send; for proxies and tests.
        sleep: How to wait between attempts.
    """

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 10.0,
        retries: int = 3,
        transport: httpx.BaseTransport | None = None,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._requests = _Requests(url, api_key=api_key, timeout_s=timeout_s, retries=retries)
        self._http = httpx.Client(transport=transport)
        self._sleep = sleep

    def __repr__(self) -> str:
        return f"<Client of {self._requests.url}>"

    def predict(
        self,
        image: Image,
        *,
        model: str | None = None,
        version: str | None = None,
        top_k: int | None = None,
    ) -> Prediction:
        """Classify one encoded image.

        Args:
            image: The bytes of a JPEG, PNG, …
            model: Its name; None: the service's default.
            version: Of it, or an alias; None: whichever serves.
            top_k: How many classes `Prediction.top` lists.

        Raises:
            RequestError: Why there is no prediction; one class a reason.
            Unreachable: Nobody answered.
            UnexpectedAnswer: Something else than the service did.
        """
        return _only(self.predict_many([image], model=model, version=version, top_k=top_k))

    def predict_many(
        self,
        images: Sequence[Image],
        *,
        model: str | None = None,
        version: str | None = None,
        top_k: int | None = None,
    ) -> Answer:
        """Classify encoded images in one request. The error of a single one stands in its place.

        Raises:
            RequestError, Unreachable, UnexpectedAnswer: As `predict`; also where every image is bad.
        """
        request = self._requests.predict(images, model=model, version=version, top_k=top_k)
        effort = self._requests.effort()
        while True:
            try:
                response = self._http.post(f"{self._requests.url}/predict", **request, **effort.options())
                return read_answer(effort.heard(response))
            except (FoldserveError, httpx.TransportError) as failure:
                wait_s = effort.wait_s(failure)
            self._sleep(wait_s)

    def is_ready(self) -> bool:
        """Whether predictions are answered now; asked once."""
        try:
            answer = self._http.get(f"{self._requests.url}/readyz", **self._requests.effort().options())
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK

    def close(self) -> None:
        """Close its connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()


class AsyncClient:
    """`Client` for an event loop; its arguments mean the same."""

    def __init__(
        self,
        url: str,
        *,
        api_key: str | None = None,
        timeout_s: float = 10.0,
        retries: int = 3,
        transport: httpx.AsyncBaseTransport | None = None,
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        self._requests = _Requests(url, api_key=api_key, timeout_s=timeout_s, retries=retries)
        self._http = httpx.AsyncClient(transport=transport)
        self._sleep = sleep

    def __repr__(self) -> str:
        return f"<AsyncClient of {self._requests.url}>"

    async def predict(
        self,
        image: Image,
        *,
        model: str | None = None,
        version: str | None = None,
        top_k: int | None = None,
    ) -> Prediction:
        """As `Client.predict`."""
        return _only(await self.predict_many([image], model=model, version=version, top_k=top_k))

    async def predict_many(
        self,
        images: Sequence[Image],
        *,
        model: str | None = None,
        version: str | None = None,
        top_k: int | None = None,
    ) -> Answer:
        """As `Client.predict_many`."""
        request = self._requests.predict(images, model=model, version=version, top_k=top_k)
        effort = self._requests.effort()
        while True:
            try:
                url = f"{self._requests.url}/predict"
                response = await self._http.post(url, **request, **effort.options())
                return read_answer(effort.heard(response))
            except (FoldserveError, httpx.TransportError) as failure:
                wait_s = effort.wait_s(failure)
            await self._sleep(wait_s)

    async def is_ready(self) -> bool:
        """As `Client.is_ready`."""
        url = f"{self._requests.url}/readyz"
        try:
            answer = await self._http.get(url, **self._requests.effort().options())
        except httpx.TransportError:
            return False
        return answer.status_code == httpx.codes.OK

    async def close(self) -> None:
        """Close its connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()


def read_answer(response: httpx.Response) -> Answer:
    """What a response of ``/predict`` says.

    Raises:
        RequestError: It is a problem document; one class a reason.
        UnexpectedAnswer: It is neither that nor predictions.
    """
    try:
        document = response.json()
        if response.status_code == httpx.codes.OK:
            predictions = tuple(map(_outcome, document["predictions"]))
            return Answer(document["model"], document["version"], document["request_id"], predictions)
        error = _error(document["reason"], document["detail"], response.headers.get("retry-after", ""))
    except (ValueError, KeyError, TypeError) as exc:
        _refuse(response, exc)
    raise error


def _refuse(response: httpx.Response, cause: Exception) -> NoReturn:
    start = response.content[:100]
    raise UnexpectedAnswer(
        f"{response.url}: status {response.status_code}, and not of this service: {start!r}"
    ) from cause


def _outcome(entry: Mapping[str, Any]) -> Prediction | RequestError:
    if "error" in entry:
        return _error(entry["error"]["reason"], entry["error"]["detail"])
    labels = entry.get("labels")
    return Prediction(
        entry["label"],
        entry["index"],
        entry["probability"],
        tuple(ScoredLabel(**each) for each in entry["top"]),
        None if labels is None else tuple(ScoredLabel(**each) for each in labels),
    )


def _error(reason: str, detail: str, retry_after: str = "") -> RequestError:
    """The error of a reason.

    Raises:
        ValueError: There is no such reason.
    """
    kind = _ERRORS[Reason(reason)]
    if issubclass(kind, Overloaded | RateLimited):
        return kind(detail, float(retry_after) if retry_after.isdecimal() else _BACKOFF_S)
    return kind(detail)


def _leaves(kind: type[RequestError]) -> list[type[RequestError]]:
    below = [leaf for child in kind.__subclasses__() for leaf in _leaves(child)]
    return below if "reason" not in vars(kind) else [kind]


def _only(answer: Answer) -> Prediction:
    (outcome,) = answer.predictions
    if isinstance(outcome, RequestError):
        raise outcome
    return outcome


_ERRORS: Final = {kind.reason: kind for kind in _leaves(RequestError) if kind is not InvalidTensor}
