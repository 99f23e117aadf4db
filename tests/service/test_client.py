"""The client: typed answers, typed errors, and attempts only where they are safe and there is time."""

from __future__ import annotations

import doctest
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from service import client as module
from service.api.problems import problem_response
from service.client import Answer, AsyncClient, Client, Prediction, UnexpectedAnswer, Unreachable, read_answer
from service.errors import (
    DeadlineExceeded,
    InferenceFailed,
    NotReady,
    Overloaded,
    RateLimited,
    Reason,
    RequestError,
    ShuttingDown,
    UndecodableImage,
)
from tests.model_files import TinyModel, png, write_model
from tests.service.api.conftest import TINY, Start, models, start  # noqa: F401 - fixtures
from tests.service.api.test_problems import LEAVES
from tests.service.test_process import running

IMAGE = png(TinyModel.make().image(1))
GOOD = {
    "model": "tiny",
    "version": "1",
    "request_id": "r",
    "predictions": [
        {
            "label": "cat",
            "index": 0,
            "probability": 0.9,
            "top": [{"label": "cat", "index": 0, "probability": 0.9}],
        }
    ],
}

Handler = Callable[[httpx.Request], httpx.Response]


def problem(error: RequestError) -> httpx.Response:
    """The service's answer to an error."""
    status, headers, body = problem_response(error, "r")
    return httpx.Response(status, headers=headers, content=body)


class Script:
    """Answers one after another; an exception is raised. The last one again and again.

    Attributes:
        requests: What came.
        waits: How long the client waited between its attempts.
    """

    def __init__(self, *answers: RequestError | Exception | httpx.Response) -> None:
        self._answers = list(answers)
        self.requests: list[httpx.Request] = []
        self.waits: list[float] = []

    def __call__(self, request: httpx.Request) -> httpx.Response:
        self.requests.append(request)
        answer = self._answers.pop(0) if len(self._answers) > 1 else self._answers[0]
        if isinstance(answer, RequestError):
            return problem(answer)
        if isinstance(answer, Exception):
            raise answer
        return answer

    def client(self, **options: Any) -> Client:
        """A client that is answered by this script, and never really waits."""
        return Client("http://x", transport=httpx.MockTransport(self), sleep=self.waits.append, **options)


def good() -> httpx.Response:
    return httpx.Response(200, json=GOOD)


@pytest.fixture
def overload() -> Script:
    return Script(Overloaded("full", 2.0), good())


def test_a_refusal_is_waited_out_as_long_as_it_says(overload: Script) -> None:
    with overload.client() as client:
        assert client.predict(IMAGE).label == "cat"
    assert overload.waits == [2.0]
    patience = [int(request.headers["x-request-timeout-ms"]) for request in overload.requests]
    assert all(0 < each <= 10_000 for each in patience)


def test_there_is_no_attempt_that_could_not_be_in_time(overload: Script) -> None:
    with overload.client(timeout_s=1.5) as client, pytest.raises(Overloaded) as caught:
        client.predict(IMAGE)
    assert (caught.value.retry_after_s, overload.waits) == (2.0, [])


@pytest.mark.parametrize(
    "failure",
    [
        NotReady("loading"),
        ShuttingDown("draining"),
        RateLimited("often", 0.5),
        httpx.ConnectError("refused"),
        httpx.ConnectTimeout("nobody"),
        httpx.RemoteProtocolError("disconnected"),
        httpx.ReadError("reset"),
    ],
    ids=lambda failure: type(failure).__name__,
)
def test_what_passes_is_tried_again(failure: Exception) -> None:
    script = Script(failure, failure, good())
    with script.client() as client:
        assert client.predict(IMAGE).label == "cat"
    assert len(script.waits) == 2
    if isinstance(failure, RequestError):  # as the service says
        assert script.waits == [1.0, 1.0]
    else:
        assert all(0.05 <= wait_s <= 0.2 for wait_s in script.waits)


@pytest.mark.parametrize(
    ("failure", "kind"),
    [
        (UndecodableImage("no image"), UndecodableImage),
        (InferenceFailed("failed"), InferenceFailed),
        (DeadlineExceeded("late"), DeadlineExceeded),
        (httpx.ReadTimeout("slow"), DeadlineExceeded),
        (httpx.Response(502, text="<html>bad gateway</html>"), UnexpectedAnswer),
        (httpx.Response(503, json={"reason": "of another service"}), UnexpectedAnswer),
        (httpx.Response(200, json={"predictions": [7]}), UnexpectedAnswer),
    ],
)
def test_nothing_else_is_tried_again(failure: Exception | httpx.Response, kind: type[Exception]) -> None:
    script = Script(failure)
    with script.client() as client, pytest.raises(kind):
        client.predict(IMAGE)
    assert len(script.requests) == 1


@pytest.mark.parametrize("retries", [0, 2])
def test_trust_ends(retries: int) -> None:
    script = Script(httpx.ConnectError("refused"))
    with script.client(retries=retries) as client, pytest.raises(Unreachable, match="refused"):
        client.predict(IMAGE)
    assert len(script.requests) == 1 + retries


@pytest.mark.parametrize("kind", LEAVES, ids=lambda kind: kind.__name__)
def test_every_reason_has_its_class(kind: type[RequestError]) -> None:
    error = kind("what", 3.0) if kind in (Overloaded, RateLimited) else kind("what")
    with pytest.raises(RequestError) as caught:
        read_answer(problem(error))
    assert caught.value.reason is kind.reason
    assert isinstance(error, type(caught.value))
    assert caught.value.detail == "what"


def test_keys_and_parameters_are_sent() -> None:
    script = Script(good())
    with script.client(api_key="secret") as client:
        client.predict(IMAGE, model="tiny", version="stable", top_k=3)
    (request,) = script.requests
    assert request.headers["authorization"] == "Bearer secret"
    assert dict(request.url.params) == {"model": "tiny", "version": "stable", "top_k": "3"}
    assert request.content == IMAGE


def test_readiness_is_a_yes_or_no() -> None:
    for answer in (httpx.Response(200), NotReady("x"), httpx.ConnectError("x")):
        with Script(answer).client() as client:
            assert client.is_ready() is isinstance(answer, httpx.Response)


async def test_the_asynchronous_one_does_the_same(overload: Script) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    transport = httpx.MockTransport(overload)
    async with AsyncClient("http://x/", transport=transport, sleep=sleep) as client:
        assert (await client.predict(IMAGE)).label == "cat"
        assert await client.is_ready()
    assert waits == [2.0]


async def test_against_the_application(start: Start) -> None:  # noqa: F811 - the fixture
    async with start() as service:
        transport = httpx.ASGITransport(service.application)
        async with AsyncClient("http://service", transport=transport) as client:
            answer = await client.predict_many([IMAGE, b"no image", png(TINY.image(2))], model="tags")
            single = await client.predict(IMAGE)
            with pytest.raises(UndecodableImage):
                await client.predict(b"no image")
    assert isinstance(answer, Answer)
    first, bad, third = answer.predictions
    assert isinstance(first, Prediction)
    assert isinstance(third, Prediction)
    assert first.labels is not None
    assert isinstance(bad, UndecodableImage)
    assert bad.reason is Reason.UNDECODABLE_IMAGE
    assert (single.labels, len(single.top)) == (None, 3)


@pytest.mark.e2e
async def test_the_examples_in_the_docstring(tmp_path: Path) -> None:
    write_model(tmp_path, model=TINY, labels=("cat", "dog", "bird"))
    async with running(tmp_path) as service:
        (example,) = [
            each
            for each in doctest.DocTestFinder(recurse=False).find(
                module, extraglobs={"url": service.url, "image": _bird()}
            )
            if each.examples
        ]
        said: list[str] = []
        result = doctest.DocTestRunner().run(example, out=said.append)
    assert (result.failed, result.attempted) == (0, 6), "".join(said)


def _bird() -> bytes:
    """An image that is clearly one."""
    images = (TINY.image(seed) for seed in range(20))
    return next(png(image) for image in images if TINY.logits(image[None])[0].argmax() == 2)


def test_the_document_is_as_the_service_writes_it() -> None:
    assert read_answer(httpx.Response(200, content=json.dumps(GOOD))).request_id == "r"
