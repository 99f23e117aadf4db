"""Is it an answer? A load test that counts wrong answers as good ones measures nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

OK = "ok"
WRONG_SHAPE = "wrong_shape"
NO_ANSWER = "no_answer"


@dataclass(frozen=True, slots=True)
class Outcome:
    """How one request ended.

    Attributes:
        kind: `OK`; the service's own reason (``overloaded``, …); `WRONG_SHAPE`: an answer that is none;
            `NO_ANSWER`: the connection broke.
        detail: What was wrong, in words; empty when nothing was.
        right: Predictions that name the picture's known label.
        known: Pictures whose label is known.
    """

    kind: str
    detail: str = ""
    right: int = 0
    known: int = 0


def judge(status: int, content: bytes, labels: Sequence[str | None]) -> Outcome:
    """What an HTTP answer to a body with these pictures is worth.

    Args:
        status: HTTP status; 0: there was no answer.
        content: The body of the answer.
        labels: One a picture that was sent, None where nobody knows what it is.
    """
    if status == 0:
        return Outcome(NO_ANSWER, "the connection broke")
    try:
        document = json.loads(content)
    except ValueError:
        return Outcome(WRONG_SHAPE, f"status {status} and no JSON")
    if status != 200:
        return _refusal(status, document)
    fault = _fault(document, len(labels))
    if fault:
        return Outcome(WRONG_SHAPE, fault)
    return _scored([prediction["label"] for prediction in document["predictions"]], labels)


def _refusal(status: int, document: Any) -> Outcome:
    if not isinstance(document, dict) or not isinstance(document.get("reason"), str):
        return Outcome(WRONG_SHAPE, f"status {status} without a reason")
    return Outcome(document["reason"], str(document.get("detail", "")))


def _scored(answers: Sequence[str], labels: Sequence[str | None]) -> Outcome:
    right = sum(answer == label for answer, label in zip(answers, labels, strict=True))
    return Outcome(OK, right=right, known=sum(label is not None for label in labels))


def _fault(document: Any, pictures: int) -> str:
    """What is wrong with a 200's document; empty when nothing is."""
    if not isinstance(document, dict):
        return "no object"
    for field in ("model", "version", "request_id"):
        if not isinstance(document.get(field), str):
            return f"no '{field}'"
    predictions = document.get("predictions")
    if not isinstance(predictions, list) or len(predictions) != pictures:
        return f"not {pictures} predictions"
    return next((fault for fault in map(_prediction_fault, predictions) if fault), "")


def _prediction_fault(prediction: Any) -> str:
    if not isinstance(prediction, dict):
        return "a prediction that is no object"
    if "error" in prediction:
        return f"an image was refused: {prediction['error']}"
    if not _is_scored_label(prediction):
        return "a prediction without label, index and probability"
    top = prediction.get("top")
    if not isinstance(top, list) or not top or not all(map(_is_scored_label, top)):
        return "a prediction without its top labels"
    if top[0]["label"] != prediction["label"]:
        return "the label is not the first of the top"
    probabilities = [entry["probability"] for entry in top]
    return "" if probabilities == sorted(probabilities, reverse=True) else "the top is not in order"


def _is_scored_label(entry: Any) -> bool:
    return (
        isinstance(entry, dict)
        and isinstance(entry.get("label"), str)
        and isinstance(entry.get("index"), int)
        and isinstance(entry.get("probability"), float | int)
        and 0 <= entry["probability"] <= 1
    )
