"""The table of statuses is whole, and every error says the same thing in the same form."""

from __future__ import annotations

from collections.abc import Iterator

import orjson
import pytest

from service.api.problems import STATUSES, problem_body, retry_after_s, status_of
from service.errors import (
    InvalidInstance,
    InvalidParameter,
    InvalidTensor,
    NotReady,
    Overloaded,
    RateLimited,
    Reason,
    RequestError,
)
from service.schemas import Problem


def _leaves(kind: type[RequestError]) -> Iterator[type[RequestError]]:
    below = kind.__subclasses__()
    for child in below:
        yield from _leaves(child)
    if not below:
        yield kind


LEAVES = sorted(_leaves(RequestError), key=lambda kind: kind.__name__)


def test_every_reason_has_one_status_and_one_error() -> None:
    assert set(STATUSES) == set(Reason)
    assert sorted(leaf.reason for leaf in LEAVES) == sorted(Reason)


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_body_keeps_the_schema(kind: type[RequestError]) -> None:
    error = kind("what", 3.0) if kind in (Overloaded, RateLimited) else kind("what")
    body = orjson.loads(problem_body(error, "id-1"))
    problem = Problem.model_validate(body)
    assert problem.status == status_of(error)
    assert problem.type.endswith(kind.reason.value)
    assert problem.detail == problem.error == "what"
    assert problem.request_id == "id-1"


def test_a_wrong_tensor_alone_has_a_status_of_its_own() -> None:
    others = [kind for kind in LEAVES if kind is not InvalidTensor]
    assert status_of(InvalidTensor("")) == 400
    assert status_of(InvalidInstance("")) == 422
    for kind in others:
        error = kind("", 3.0) if kind in (Overloaded, RateLimited) else kind("")
        assert status_of(error) == STATUSES[kind.reason]


@pytest.mark.parametrize(
    ("error", "seconds"),
    [
        (Overloaded("", 0.001), 1),
        (Overloaded("", 1.0), 1),
        (Overloaded("", 1.2), 2),
        (RateLimited("", 59.5), 60),
        (NotReady(""), 1),
        (InvalidInstance(""), None),
    ],
)
def test_retry_after_is_whole_seconds_where_waiting_helps(error: RequestError, seconds: int | None) -> None:
    assert retry_after_s(error) == seconds


def test_what_is_said_of_an_error_is_short_and_text_whatever_it_quotes() -> None:
    error = InvalidParameter("there is no '\ud800" + "x" * 10_000_000 + "'")
    assert error.detail.startswith("there is no '\\ud800xxx")
    assert len(problem_body(error, "id")) < 3000
