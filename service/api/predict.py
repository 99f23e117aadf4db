"""``POST /predict``: the hot route.

::

    query, headers ──▶ model, deadline
    body           ──▶ encoded images            (too large, too slow, malformed: refused)
    find           ──▶ the version that serves   (a reload may have come in between)
    inference      ──▶ rows                      (admit, decode, submit, await)
    JSON

It does no more than it must: no framework between the server and this function, no task of its own,
no model objects on the way out. `service.schemas` documents the shapes, and tests hold it to them.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final
from urllib.parse import parse_qsl

import orjson

from service.api.exchange import Exchange
from service.api.inference import Inference, Outcome, client_timeout_s, observe_stage, refuse_content_coding
from service.api.numerals import whole_number
from service.api.payload import parse_payload
from service.api.problems import instance_problem
from service.artifact import Task
from service.batcher import Row
from service.errors import InvalidParameter, RequestError
from service.metrics import Metrics
from service.repository import ServedModel

_JSON: Final = ((b"content-type", b"application/json"),)

_MAX_TOP_K = 1000


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
        inference: The road to the models.
        metrics: Where the errors of single images are counted.
    """

    def __init__(self, inference: Inference, metrics: Metrics) -> None:
        self._inference = inference
        self._metrics = metrics

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request.

        Raises:
            RequestError: The request as a whole, or every one of its images, failed.
            ClientLeft: Nobody waits for the answer any more.
        """
        query = parse_query(exchange.scope["query_string"])
        timeout_s = client_timeout_s(exchange)
        self._inference.find(exchange, query.model, query.version)  # refuse before the body is read
        refuse_content_coding(exchange)
        try:
            model, outcomes = await self._classify(exchange, query, timeout_s)
        finally:
            self._inference.bodies.release(exchange)
        await self._answer(exchange, model, outcomes, query.top_k or self._inference.limits.top_k)

    async def _classify(
        self, exchange: Exchange, query: Query, timeout_s: float | None
    ) -> tuple[ServedModel, list[Outcome]]:
        inference = self._inference
        body = await inference.bodies.read(exchange)
        received_s = time.monotonic() - exchange.started
        content_type = exchange.headers.get(b"content-type", b"")
        images = parse_payload(content_type, body, inference.limits.max_images)
        deadline = inference.deadline(exchange.started, timeout_s)
        model = inference.find(exchange, query.model, query.version)
        observe_stage(exchange, model, "receive", exchange.started, received_s)
        with model.batcher.admit(len(images), deadline) as permit:
            return model, await inference.outcomes(exchange, model, permit, images)

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
                prediction(outcome, model, top_k)
                if isinstance(outcome, Row)
                else self._refused(exchange, outcome)
                for outcome in outcomes
            ],
        }
        body = orjson.dumps(document)
        exchange.timings += (
            ("queue", max(row.queue_s for row in rows)),
            ("inference", max(row.inference_s for row in rows)),
        )
        observe_stage(exchange, model, "serialize", started, time.monotonic() - started)
        await exchange.respond(200, _JSON, body)

    def _refused(self, exchange: Exchange, error: RequestError) -> dict[str, dict[str, str]]:
        exchange.refused_images[error.reason] = exchange.refused_images.get(error.reason, 0) + 1
        self._metrics.request_rejected(error.reason)
        return instance_problem(error)


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
    top_k = whole_number(text.encode(), 1, _MAX_TOP_K)
    if top_k is None:
        raise InvalidParameter(f"top_k must be a whole number from 1 to {_MAX_TOP_K}, not '{text}'")
    return top_k
