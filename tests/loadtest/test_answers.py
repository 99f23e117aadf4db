"""Only a right-shaped answer counts: every way of being wrong is seen."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest

from loadtest import answers
from tests.loadtest.scripted_service import document


def _judge(value: object, labels: tuple[str | None, ...] = ("7", "7"), status: int = 200) -> answers.Outcome:
    return answers.judge(status, json.dumps(value).encode(), labels)


def test_a_right_shaped_answer_is_scored_against_the_known_labels() -> None:
    assert _judge(document(3), ("7", "1", None)) == answers.Outcome(answers.OK, right=1, known=2)


def _put(*path: str | int, value: object) -> Callable[[Any], None]:
    def change(target: Any) -> None:
        for step in path[:-1]:
            target = target[step]
        target[path[-1]] = value

    return change


MUTANTS = {
    "fewer predictions": lambda answer: answer["predictions"].pop(),
    "no model": lambda answer: answer.pop("model"),
    "version is a number": _put("version", value=1),
    "no request id": lambda answer: answer.pop("request_id"),
    "predictions are no list": _put("predictions", value={}),
    "a prediction is no object": _put("predictions", 1, value="7"),
    "an image was refused": _put("predictions", 1, value={"error": {"reason": "undecodable_image"}}),
    "no label": lambda answer: answer["predictions"][0].pop("label"),
    "probability above one": _put("predictions", 0, "probability", value=1.5),
    "probability is text": _put("predictions", 0, "probability", value="0.75"),
    "no top": _put("predictions", 0, "top", value=[]),
    "top is in the wrong order": lambda answer: answer["predictions"][0]["top"].reverse(),
    "top disagrees with the label": _put("predictions", 0, "label", value="8"),
    "top probabilities rise": _put("predictions", 0, "top", 1, "probability", value=0.9),
}


@pytest.mark.parametrize("name", MUTANTS)
def test_a_mutant_is_no_answer(name: str) -> None:
    answer = document(2)
    MUTANTS[name](answer)
    outcome = _judge(answer)
    assert outcome.kind == answers.WRONG_SHAPE
    assert outcome.detail


def test_a_refusal_is_counted_under_its_reason() -> None:
    outcome = _judge({"reason": "overloaded", "detail": "the queue is full"}, status=503)
    assert outcome == answers.Outcome("overloaded", "the queue is full")


@pytest.mark.parametrize(("status", "content"), [(500, b"oops"), (500, b"{}"), (200, b""), (200, b"[]")])
def test_what_is_no_answer_of_this_service(status: int, content: bytes) -> None:
    assert answers.judge(status, content, ("7",)).kind == answers.WRONG_SHAPE


def test_a_broken_connection_is_no_answer() -> None:
    assert answers.judge(0, b"", ("7",)).kind == answers.NO_ANSWER
