"""The road that every form of request shares: instances become pixels, wait in line, and come back as rows.

::

    admit      ──▶ Permit for all of them    (the door: before any decoding; the caller's)
    decode     ──▶ pixels                    (small images here, big ones in the pool; a tensor's are there)
    submit     ──▶ futures                   (cancelled if the client leaves)
    await      ──▶ rows                      (usually one wake-up for all)

Where each core runs batches of its own, a thread that decodes is in their way, and the hops to it and back
cost more. Then all but the largest images wait as they are, and the thread that runs a batch decodes it.
"""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Awaitable, Callable, Sequence
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Final, Literal, Protocol, TypeAlias, TypeVar

import numpy as np
from numpy.typing import NDArray

from service.api.body import BodyLimits, BodyReader
from service.api.exchange import ClientLeft, Exchange, OnLeave
from service.api.numerals import whole_number
from service.api.payload import Encoded
from service.artifact import InputContract
from service.batcher import Permit, Row
from service.errors import (
    DeadlineExceeded,
    InvalidParameter,
    Overloaded,
    RequestError,
    UnsupportedMediaType,
)
from service.images import DecodeLimits, decode, is_moderate, is_quick, probe
from service.repository import ServedModel
from service.tracing import RunBatch, Trace

Pixels: TypeAlias = NDArray[np.uint8]
# Of one instance: an encoded image, uint8 [H, W, C], or what is wrong with it.
Instance: TypeAlias = Encoded | Pixels | RequestError
Outcome: TypeAlias = Row | RequestError
# Model, version and routing key → the version that answers.
Resolve: TypeAlias = Callable[[str | None, str | None, bytes], ServedModel]
# Pixels, the seconds they took, and what they were made of.
_Decoded: TypeAlias = tuple[Pixels, float, Encoded]
T = TypeVar("T")
F = TypeVar("F", "asyncio.Future[tuple[NDArray[np.uint8], float, Encoded]]", "asyncio.Future[Row]")

_MAX_TIMEOUT_MS: Final = 3_600_000
# Other requests give theirs back; a second later it may be enough.
_NO_MEMORY_RETRY_S: Final = 1.0


class Caller(Protocol):
    """Who asks, as far as the road is concerned; `service.api.exchange.Exchange` is one.

    Attributes:
        request_id: The request's name.
        headers: By lower-case name.
        timings: Name and seconds of each stage.
        trace: Of the request; None where it is not traced.
    """

    request_id: str
    headers: dict[bytes, bytes]
    timings: list[tuple[str, float]]
    trace: Trace | None

    def watch(self, on_leave: OnLeave) -> None:
        """Have ``on_leave`` called once if the client leaves from here on."""


@dataclass(frozen=True, slots=True)
class RequestLimits:
    """What a request may ask for, out of the settings.

    Attributes:
        routing_header: Its value keeps a client on a canary's side or off it; in lower case.
    """

    body: BodyLimits
    max_images: int
    default_deadline_s: float
    top_k: int
    decode: DecodeLimits
    routing_header: bytes = b"x-routing-key"


class Inference:
    """The road, with all that it needs. One for all routes of an application.

    Args:
        resolve: The served model of a name and version, or of neither; for a routing key.
        limits: What a request may ask for.
        pool: Where big images are decoded.

    Attributes:
        resolve: As given.
        limits: As given.
        bodies: Where request bodies are read, within one limit for all of them.
    """

    def __init__(self, resolve: Resolve, limits: RequestLimits, pool: Executor) -> None:
        self.resolve = resolve
        self.limits = limits
        self.bodies = BodyReader(limits.body)
        self._pool = pool

    def find(self, caller: Caller, model: str | None, version: str | None) -> ServedModel:
        """The version that answers a request at this moment.

        Admit to its batcher before anything is awaited: a version that was found has not begun to close.

        Raises:
            ModelNotFound: No such model or version is loaded.
            NotReady: Nothing is served yet.
        """
        key = caller.headers.get(self.limits.routing_header)
        return self.resolve(model, version, key or caller.request_id.encode())

    def deadline(self, started: float, timeout_s: float | None) -> float:
        """On the clock of `time.monotonic`. The default leaves out what the client took to send its body.

        Args:
            started: At the request's first byte.
            timeout_s: What the client says of its patience from there on; None: nothing.
        """
        if timeout_s is None:
            return time.monotonic() + self.limits.default_deadline_s
        return started + timeout_s

    async def outcomes(
        self, caller: Caller, model: ServedModel, permit: Permit, instances: Sequence[Instance]
    ) -> list[Outcome]:
        """Decode, submit and await all instances, each to its row or its own error.

        Raises:
            ClientLeft: Nobody waits for the answer any more.
        """
        started = time.monotonic()
        work = _Work()
        caller.watch(work.leave)
        try:
            decoded = [self._decode(instance, model, permit, work) for instance in instances]
            pending = [
                _submit(
                    await _settled(pixels) if isinstance(pixels, asyncio.Future) else pixels,
                    model,
                    permit,
                    work,
                    self.limits.decode,
                    started,
                )
                for pixels in decoded
            ]
            seconds = time.monotonic() - started
            outcomes = [await _settled(row) if isinstance(row, asyncio.Future) else row for row in pending]
        except asyncio.CancelledError:
            if not work.is_abandoned:
                raise
            if permit.slots:
                model.metrics.instances_cancelled("decode", permit.slots)
            raise ClientLeft("decode" if permit.slots else "queue") from None
        before_s = 0.0 if all(isinstance(image, _Undecoded) for image in decoded) else seconds
        by_batch_s = 0.0
        for image, outcome in zip(decoded, outcomes, strict=True):
            if isinstance(outcome, Row):
                by_batch_s = max(by_batch_s, outcome.decode_s)
                if isinstance(image, _Undecoded):
                    _observe_image(image.decoded_in(outcome), model, self.limits.decode, started)
        caller.timings.append(("decode", max(before_s, by_batch_s)))
        if caller.trace is not None:
            _trace(caller.trace, model, outcomes, started, before_s)
        audience = model.tap.audience
        if audience is not None:  # told in the loop's next turn, when the answer is on its way
            asyncio.get_running_loop().call_soon(audience.offer, instances, outcomes)
        return outcomes

    def _decode(
        self, instance: Instance, model: ServedModel, permit: Permit, work: _Work
    ) -> _Decoded | asyncio.Future[_Decoded] | _Undecoded | Pixels | RequestError:
        """Decode a small image now, leave a larger one to the pool or its batch, pass on the rest."""
        if isinstance(instance, (RequestError, np.ndarray)):
            return instance
        limits, contract, started = self.limits.decode, model.metadata.input, time.monotonic()
        try:
            if is_quick(instance, limits):
                return _decode_timed(instance, contract, limits, started)
            is_for_batch = model.batcher.takes_encoded and is_moderate(instance, limits)
        except RequestError as error:
            return error.without_frames()
        except MemoryError:
            return _no_memory()
        if is_for_batch:
            image = _Undecoded(instance, contract, limits)
            image.row = work.add(model.batcher.submit(permit, image))
            return image
        loop = asyncio.get_running_loop()
        arguments = instance, contract, limits, started
        return work.add(loop.run_in_executor(self._pool, _decode_in_time, permit.deadline, *arguments))


class _Undecoded:
    """An image in the line that is decoded by the thread that runs its batch.

    Attributes:
        row: Its answer to come.
    """

    __slots__ = ("_contract", "_data", "_limits", "_pixels", "row")

    row: asyncio.Future[Row]
    _pixels: Pixels

    def __init__(self, data: Encoded, contract: InputContract, limits: DecodeLimits) -> None:
        self._data = data
        self._contract = contract
        self._limits = limits

    def __call__(self) -> Pixels:
        """Decode it, on that thread.

        Raises:
            RequestError: As `_decode_now`.
        """
        self._pixels = _decode_now(self._data, self._contract, self._limits)
        return self._pixels

    def decoded_in(self, row: Row) -> _Decoded:
        """What became of it, if this is its row."""
        return self._pixels, row.decode_s, self._data


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
    """The pixels, and the seconds since ``started`` (with those spent waiting for a thread).

    Raises:
        RequestError: As `_decode_now`.
    """
    return _decode_now(data, contract, limits), time.monotonic() - started, data


def _decode_now(data: Encoded, contract: InputContract, limits: DecodeLimits) -> Pixels:
    """The pixels.

    Raises:
        Overloaded: There is no memory for it now, which is not the client's fault.
        RequestError: As `decode`.
    """
    try:
        return decode(data, contract, limits)
    except MemoryError as exc:
        raise _no_memory() from exc


def _no_memory() -> Overloaded:
    return Overloaded("there is no memory to decode this image now", _NO_MEMORY_RETRY_S)


def _decode_in_time(
    deadline: float, data: Encoded, contract: InputContract, limits: DecodeLimits, started: float
) -> _Decoded:
    """As `_decode_timed`, in a thread of the pool, for which many large images may wait long.

    Raises:
        DeadlineExceeded: Nobody wants it any more. So a request keeps no thread for longer than it lives.
        RequestError: As `_decode_now`.
    """
    if time.monotonic() >= deadline:
        raise DeadlineExceeded("the deadline passed before this image was decoded")
    return _decode_timed(data, contract, limits, started)


async def _settled(work: Awaitable[T]) -> T | RequestError:
    """The result of one instance's work; its error, where it has one, as a value."""
    try:
        return await work
    except RequestError as error:
        return error.without_frames()


def _submit(
    decoded: _Decoded | _Undecoded | Pixels | RequestError,
    model: ServedModel,
    permit: Permit,
    work: _Work,
    limits: DecodeLimits,
    started: float,
) -> asyncio.Future[Row] | RequestError:
    """Put an image in the line; give the slot of a bad one back.

    Args:
        started: When the decoding of the request's images began.
    """
    if isinstance(decoded, RequestError):
        permit.release(1)
        model.metrics.image_rejected(decoded.reason)
        return decoded
    if isinstance(decoded, _Undecoded):
        return decoded.row
    if isinstance(decoded, tuple):
        _observe_image(decoded, model, limits, started)
        decoded = decoded[0]
    return work.add(model.batcher.submit(permit, decoded))


def _observe_image(decoded: _Decoded, model: ServedModel, limits: DecodeLimits, started: float) -> None:
    """Note how long it took, and what it looks like if that is due.

    Args:
        started: As for `_submit`.
    """
    pixels, seconds, data = decoded
    model.metrics.note["decode"](seconds)
    drift = model.metrics.drift
    if drift is not None and started >= drift.image_due:
        drift.observe_image(pixels, math.sqrt(probe(data, limits).pixels), started)


def _trace(
    trace: Trace, model: ServedModel, outcomes: Sequence[Outcome], started: float, decode_s: float
) -> None:
    """Note how long a request was decoded before its instances were in line, and the batches they ran in."""
    if decode_s:
        trace.stage("decode", started, decode_s)
    name = f"{model.name}/{model.version}"
    for row in outcomes:
        if isinstance(row, Row):
            batch = RunBatch(name, row.started, row.decode_s, row.inference_s, row.batch_size)
            trace.ran(batch, row.queue_s)


def observe_stage(
    caller: Caller,
    model: ServedModel,
    stage: Literal["receive", "serialize"],
    started: float,
    seconds: float,
) -> None:
    """The request as a whole was in this stage from then on, for so long."""
    model.metrics.note[stage](seconds)
    if caller.trace is not None:
        caller.trace.stage(stage, started, seconds)


def client_timeout_s(exchange: Exchange) -> float | None:
    """What the client says of its patience, from the first byte of its request on; None: nothing.

    Raises:
        InvalidParameter: It is no whole number of milliseconds, or out of range.
    """
    return parse_timeout_s(exchange.headers.get(b"x-request-timeout-ms"))


def parse_timeout_s(given: bytes | None) -> float | None:
    """Seconds, of the header that says milliseconds; None where it was not sent.

    Raises:
        InvalidParameter: As `client_timeout_s`.
    """
    if given is None:
        return None
    timeout_ms = whole_number(given, 1, _MAX_TIMEOUT_MS)
    if timeout_ms is None:
        raise InvalidParameter(f"X-Request-Timeout-Ms must be a whole number from 1 to {_MAX_TIMEOUT_MS}")
    return timeout_ms / 1000


def refuse_content_coding(exchange: Exchange) -> None:
    """Bodies come as they are.

    Raises:
        UnsupportedMediaType: This one is compressed.
    """
    coding = exchange.headers.get(b"content-encoding", b"identity").strip().lower()
    if coding not in (b"identity", b""):
        raise UnsupportedMediaType(
            f"content coding '{coding.decode('latin-1')}' is not taken; images are compressed already"
        )
