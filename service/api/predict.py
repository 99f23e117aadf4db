"""``POST /predict``: the hot route.

::

    query, headers ──▶ model, deadline
    body           ──▶ encoded images            (too large, too slow, malformed: refused)
    admit          ──▶ Permit for all of them    (the door: before any decoding)
    decode         ──▶ pixels                    (small ones here, big ones in the pool)
    submit         ──▶ futures                   (cancelled if the client leaves)
    await          ──▶ rows                      (usually one wake-up for all)
    JSON

It does no more than it must: no framework between the server and this function, no task of its own,
no model objects on the way out. `service.schemas` documents the shapes, and tests hold it to them.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, TypeAlias, TypeVar
from urllib.parse import parse_qsl

import numpy as np
import orjson
from numpy.typing import NDArray

from service.api.body import BodyLimits, BodyReader
from service.api.exchange import ClientLeft, Exchange
from service.api.payload import Encoded, parse_payload
from service.api.problems import instance_problem
from service.artifact import InputContract, Task
from service.batcher import Permit, Row
from service.errors import InvalidParameter, RequestError, UnsupportedMediaType
from service.images import DecodeLimits, decode, is_quick
from service.metrics import Metrics
from service.repository import ServedModel

_JSON: Final = ((b"content-type", b"application/json"),)

_MAX_TIMEOUT_MS = 3_600_000
_MAX_TOP_K = 1000

Resolve: TypeAlias = Callable[[str | None, str | None], ServedModel]
Outcome: TypeAlias = Row | RequestError
# Pixels, and the seconds they took.
_Decoded: TypeAlias = tuple[NDArray[np.uint8], float]
T = TypeVar("T")
F = TypeVar("F", "asyncio.Future[tuple[NDArray[np.uint8], float]]", "asyncio.Future[Row]")


@dataclass(frozen=True, slots=True)
class PredictLimits:
    """What a request may ask for, out of the settings."""

    body: BodyLimits
    max_images: int
    default_deadline_s: float
    top_k: int
    decode: DecodeLimits


@dataclass(frozen=True, slots=True)
class Query:
    """The query parameters of ``/predict``; None where a parameter was not given."""

    model: str | None = None
    version: str | None = None
    top_k: int | None = None


_NO_QUERY = Query()


class PredictEndpoint:
    """The route's work, with all that it needs.

    Args:
        resolve: The served model of a name and version, or of neither.
        limits: What a request may ask for.
        pool: Where big images are decoded.
        metrics: Where the errors of single images are counted.
    """

    def __init__(self, resolve: Resolve, limits: PredictLimits, pool: Executor, metrics: Metrics) -> None:
        self._resolve = resolve
        self._limits = limits
        self._bodies = BodyReader(limits.body)
        self._metrics = metrics
        self._pool = pool

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request.

        Raises:
            RequestError: The request as a whole, or every one of its images, failed.
            ClientLeft: Nobody waits for the answer any more.
        """
        query = parse_query(exchange.scope["query_string"])
        timeout_s = client_timeout_s(exchange)
        model = self._resolve(query.model, query.version)
        _refuse_content_coding(exchange)
        try:
            outcomes = await self._classify(exchange, model, timeout_s)
        finally:
            self._bodies.release(exchange)
        await self._answer(exchange, model, outcomes, query.top_k or self._limits.top_k)

    async def _classify(
        self, exchange: Exchange, model: ServedModel, timeout_s: float | None
    ) -> list[Outcome]:
        body = await self._bodies.read(exchange)
        model.metrics.observe_stage("receive", time.monotonic() - exchange.started)
        content_type = exchange.headers.get(b"content-type", b"")
        images = parse_payload(content_type, body, self._limits.max_images)
        with model.batcher.admit(len(images), self._deadline(exchange, timeout_s)) as permit:
            return await self._outcomes(exchange, model, permit, images)

    def _deadline(self, exchange: Exchange, timeout_s: float | None) -> float:
        """On the clock of `time.monotonic`. The default leaves out what the client took to send its body."""
        if timeout_s is None:
            return time.monotonic() + self._limits.default_deadline_s
        return exchange.started + timeout_s

    async def _answer(
        self, exchange: Exchange, model: ServedModel, outcomes: Sequence[Outcome], top_k: int
    ) -> None:
        rows = [outcome for outcome in outcomes if isinstance(outcome, Row)]
        if not rows:
            raise next(outcome for outcome in outcomes if isinstance(outcome, RequestError))
        started = time.monotonic()
        document = {
            "model": model.name,
            "version": model.version,
            "request_id": exchange.request_id,
            "predictions": [
                prediction(outcome, model, top_k) if isinstance(outcome, Row) else self._refused(outcome)
                for outcome in outcomes
            ],
        }
        body = orjson.dumps(document)
        exchange.timings += (
            ("queue", max(row.queue_s for row in rows)),
            ("inference", max(row.inference_s for row in rows)),
        )
        model.metrics.observe_stage("serialize", time.monotonic() - started)
        await exchange.respond(200, _JSON, body)

    def _refused(self, error: RequestError) -> dict[str, dict[str, str]]:
        self._metrics.request_rejected(error.reason)
        return instance_problem(error)

    async def _outcomes(
        self, exchange: Exchange, model: ServedModel, permit: Permit, images: Sequence[Encoded | RequestError]
    ) -> list[Outcome]:
        """Decode, submit and await all images, each to its row or its own error."""
        started = time.monotonic()
        work = _Work()
        exchange.watch(work.leave)
        try:
            decoded = [self._decode(data, model, work) for data in images]
            pending = [
                _submit(
                    await _settled(pixels) if isinstance(pixels, asyncio.Future) else pixels,
                    model,
                    permit,
                    work,
                )
                for pixels in decoded
            ]
            exchange.timings.append(("decode", time.monotonic() - started))
            return [await _settled(row) if isinstance(row, asyncio.Future) else row for row in pending]
        except asyncio.CancelledError:
            if not work.is_abandoned:
                raise
            if permit.slots:
                model.metrics.instances_cancelled("decode", permit.slots)
            raise ClientLeft("decode" if permit.slots else "queue") from None

    def _decode(
        self, data: Encoded | RequestError, model: ServedModel, work: _Work
    ) -> _Decoded | asyncio.Future[_Decoded] | RequestError:
        """Decode a small image now, have a big one decoded in the pool, pass an error on."""
        if isinstance(data, RequestError):
            return data
        limits, contract, started = self._limits.decode, model.metadata.input, time.monotonic()
        try:
            if is_quick(data, limits):
                return _decode_timed(data, contract, limits, started)
        except RequestError as error:
            return error
        loop = asyncio.get_running_loop()
        return work.add(loop.run_in_executor(self._pool, _decode_timed, data, contract, limits, started))


class _Work:
    """What runs for one request, to be cancelled when its client leaves."""

    __slots__ = ("_futures", "is_abandoned")

    def __init__(self) -> None:
        self._futures: list[asyncio.Future[_Decoded] | asyncio.Future[Row]] = []
        self.is_abandoned = False

    def add(self, future: F) -> F:
        """Cancel this one too; at once, if the client is gone already."""
        self._futures.append(future)
        if self.is_abandoned:
            future.cancel()
        return future

    def leave(self) -> None:
        """The client is gone."""
        self.is_abandoned = True
        for future in self._futures:
            future.cancel()


def _decode_timed(data: Encoded, contract: InputContract, limits: DecodeLimits, started: float) -> _Decoded:
    """The pixels, and the seconds since ``started`` (with those spent waiting for a thread)."""
    return decode(data, contract, limits), time.monotonic() - started


async def _settled(work: Awaitable[T]) -> T | RequestError:
    """The result of one image's work; its error, where it has one, as a value."""
    try:
        return await work
    except RequestError as error:
        return error


def _submit(
    decoded: _Decoded | RequestError, model: ServedModel, permit: Permit, work: _Work
) -> asyncio.Future[Row] | RequestError:
    """Put decoded pixels in the line; give the slot of a bad image back."""
    if isinstance(decoded, RequestError):
        permit.release(1)
        model.metrics.image_rejected(decoded.reason)
        return decoded
    pixels, seconds = decoded
    model.metrics.observe_stage("decode", seconds)
    return work.add(model.batcher.submit(permit, pixels))


def prediction(row: Row, model: ServedModel, top_k: int) -> dict[str, object]:
    """One image's entry in the answer; the shape of `service.schemas.Prediction`."""
    labels = model.metadata.labels
    top = [
        {"label": labels[index], "index": index, "probability": probability}
        for index, probability in row.top(top_k)
    ]
    entry: dict[str, object] = {**top[0], "top": top}
    if model.metadata.task is Task.MULTILABEL:
        entry["labels"] = _labels_present(row, model)
    return entry


def _labels_present(row: Row, model: ServedModel) -> list[dict[str, object]]:
    """Every label from the threshold on, most probable first."""
    labels, threshold = model.metadata.labels, model.metadata.threshold
    return [
        {"label": labels[index], "index": index, "probability": probability}
        for index, probability in row.top(len(labels))
        if probability >= threshold
    ]


def client_timeout_s(exchange: Exchange) -> float | None:
    """What the client says of its patience, from the first byte of its request on; None: nothing.

    Raises:
        InvalidParameter: It is no whole number of milliseconds, or out of range.
    """
    given = exchange.headers.get(b"x-request-timeout-ms")
    if given is None:
        return None
    if not given.isdigit() or not 1 <= int(given) <= _MAX_TIMEOUT_MS:
        raise InvalidParameter(f"X-Request-Timeout-Ms must be a whole number from 1 to {_MAX_TIMEOUT_MS}")
    return int(given) / 1000


def parse_query(query_string: bytes) -> Query:
    """The query parameters of ``/predict``.

    Raises:
        InvalidParameter: Unknown, repeated, empty or out of range.
    """
    if not query_string:
        return _NO_QUERY
    given: dict[str, str] = {}
    for name, value in parse_qsl(query_string.decode("latin-1"), keep_blank_values=True):
        if name not in ("model", "version", "top_k"):
            raise InvalidParameter(f"unknown query parameter '{name}'; there are model, version and top_k")
        if name in given or not value:
            raise InvalidParameter(f"query parameter '{name}' must be given once, with a value")
        given[name] = value
    return Query(given.get("model"), given.get("version"), _parse_top_k(given.get("top_k")))


def _parse_top_k(text: str | None) -> int | None:
    if text is None:
        return None
    if not (text.isascii() and text.isdigit() and 1 <= int(text) <= _MAX_TOP_K):
        raise InvalidParameter(f"top_k must be a whole number from 1 to {_MAX_TOP_K}, not '{text}'")
    return int(text)


def _refuse_content_coding(exchange: Exchange) -> None:
    coding = exchange.headers.get(b"content-encoding", b"identity").strip().lower()
    if coding not in (b"identity", b""):
        raise UnsupportedMediaType(
            f"content coding '{coding.decode('latin-1')}' is not taken; images are compressed already"
        )
