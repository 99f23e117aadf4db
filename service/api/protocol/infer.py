"""``POST /v2/models/{model}/infer``: the hot route of the Open Inference Protocol.

::

    path, headers ──▶ model, deadline
    body          ──▶ tensors                 (views into it, where they are binary)
    find          ──▶ the version that serves (a reload may have come in between)
    declaration   ──▶ number of instances     (name, datatype, shape: refused before their data is looked at)
    inference     ──▶ rows                    (admit, decode encoded images, submit, await)
    tensors, JSON

The protocol knows no error of a single instance: the first one is the whole request's.
"""

from __future__ import annotations

import time
from collections.abc import Sequence

from service.api.exchange import Exchange, is_well_formed_id
from service.api.inference import (
    Caller,
    Inference,
    Outcome,
    client_timeout_s,
    observe_stage,
    refuse_content_coding,
)
from service.api.protocol.carriage import JSON_LENGTH_HEADER, encode_response, parse_request
from service.api.protocol.tensors import InferRequest, OutputTensor, images_of, instances_of, outputs_of
from service.batcher import Row
from service.errors import Reason, RequestError
from service.repository import ServedModel

# Of one image among several, so that the message must say of which.
_IMAGE_REASONS = frozenset({Reason.UNDECODABLE_IMAGE, Reason.TOO_MANY_PIXELS, Reason.UNSUPPORTED_MEDIA_TYPE})


class InferEndpoint:
    """The route's work.

    Args:
        inference: The road to the models.
    """

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request.

        Raises:
            RequestError: The request, or one of its instances, failed.
            ClientLeft: Nobody waits for the answer any more.
        """
        path, inference = exchange.path_parameters, self._inference
        timeout_s = client_timeout_s(exchange)
        inference.find(exchange, path["model"], path.get("version"))  # refuse before the body is read
        refuse_content_coding(exchange)
        try:
            body = await inference.bodies.read(exchange)
            received_s = time.monotonic() - exchange.started
            request = parse_request(body, exchange.headers.get(JSON_LENGTH_HEADER))
            _adopt_id(exchange, request.id)
            deadline = inference.deadline(exchange.started, sooner(timeout_s, request.timeout_s))
            model = inference.find(exchange, path["model"], path.get("version"))
            observe_stage(exchange, model, "receive", exchange.started, received_s)
            outputs = await infer(inference, exchange, model, request, deadline)
        finally:
            inference.bodies.release(exchange)
        started = time.monotonic()
        headers, answer = encode_response(
            outputs, model=model.name, version=model.version, identity=request.id or exchange.request_id
        )
        observe_stage(exchange, model, "serialize", started, time.monotonic() - started)
        await exchange.respond(200, headers, answer)


async def infer(
    inference: Inference, caller: Caller, model: ServedModel, request: InferRequest, deadline: float
) -> list[OutputTensor]:
    """The tensors that answer a request, whatever brought it.

    Raises:
        RequestError: The request, or one of its instances, failed.
        ClientLeft: Nobody waits for the answer any more.
    """
    tensor = images_of(request.inputs, model.metadata.input, inference.limits.max_images)
    with model.batcher.admit(tensor.shape[0], deadline) as permit:
        instances = instances_of(tensor)
        rows = rows_of(await inference.outcomes(caller, model, permit, instances))
    note_timings(caller, rows)
    return outputs_of(rows, model.labels, request.outputs)


def rows_of(outcomes: Sequence[Outcome]) -> list[Row]:
    """The rows, if there is one for every instance.

    Raises:
        RequestError: The first instance's that has none.
    """
    rows = []
    for position, outcome in enumerate(outcomes):
        if isinstance(outcome, RequestError):
            if outcome.reason in _IMAGE_REASONS:
                outcome.detail = f"image {position}: {outcome.detail}"
            raise outcome
        rows.append(outcome)
    return rows


def note_timings(caller: Caller, rows: Sequence[Row]) -> None:
    """What the slowest of the rows took, for Server-Timing."""
    caller.timings += (
        ("queue", max(row.queue_s for row in rows)),
        ("inference", max(row.inference_s for row in rows)),
    )


def sooner(one_s: float | None, other_s: float | None) -> float | None:
    """The shorter of two patiences; None where neither was said."""
    if one_s is None or other_s is None:
        return one_s if other_s is None else other_s
    return min(one_s, other_s)


def _adopt_id(exchange: Exchange, identity: str) -> None:
    """The client's name for the request is its name in the log, unless a header gave one."""
    if b"x-request-id" not in exchange.headers and is_well_formed_id(identity.encode()):
        exchange.request_id = identity
