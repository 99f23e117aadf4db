"""The hot route: right answers in every form, and the stated answer to everything that is wrong."""

from __future__ import annotations

import asyncio
import base64
import re
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path

import httpx
import numpy as np
import pytest

from service.api import inference
from service.api.inference import Pixels
from service.api.problems import STATUSES
from service.artifact import InputContract
from service.batcher import Batcher
from service.errors import InferenceFailed, Reason
from service.hardware import available_cpus
from service.images import DecodeLimits, decode
from service.schemas import InstanceError, PredictResponse, Problem
from tests.model_files import png, write_model
from tests.service.api.conftest import LABELS, TINY, Running, Start

TIMEOUT_S = 10.0


def softmax(logits: np.ndarray[tuple[int, ...], np.dtype[np.float32]]) -> list[float]:
    exponentials = np.exp(logits.astype(np.float64) - logits.max())
    shares: list[float] = (exponentials / exponentials.sum()).tolist()
    return shares


def expected(data: bytes, contract: InputContract) -> list[float]:
    """The probabilities of one image, computed beside the service."""
    return softmax(TINY.logits(decode(data, contract)[np.newaxis])[0])


async def post(service: Running, **request: object) -> httpx.Response:
    async with asyncio.timeout(TIMEOUT_S):
        return await service.client.post("/predict", **request)  # type: ignore[arg-type]


def problem_of(response: httpx.Response, reason: Reason) -> Problem:
    """The response's problem, after checking everything that every problem has."""
    assert response.headers["content-type"] == "application/problem+json"
    problem = Problem.model_validate(response.json())
    assert problem.reason is reason
    assert problem.status == response.status_code == STATUSES[reason]
    assert problem.request_id == response.headers["x-request-id"]
    assert "total;dur=" in response.headers["server-timing"]
    return problem


# Right answers.

FORMS: dict[str, Callable[[list[bytes]], dict[str, object]]] = {
    "multipart": lambda images: {"files": [("f", ("x", image)) for image in images]},
    "base64": lambda images: {"json": {"images": [base64.b64encode(image).decode() for image in images]}},
    "data uri": lambda images: {
        "json": {"images": [f"data:image/png;base64,{base64.b64encode(image).decode()}" for image in images]}
    },
}


@pytest.mark.usefixtures("whenever_decoded")
@pytest.mark.parametrize("form", FORMS)
async def test_every_form_gives_the_engines_own_answer(service: Running, form: str) -> None:
    images = [png(TINY.image(seed)) for seed in range(20)]
    contract = service.application.repository.resolve().metadata.input
    response = await post(service, **FORMS[form](images))
    answer = PredictResponse.model_validate(response.json())
    assert (response.status_code, answer.model, answer.version) == (200, "tiny", "1")
    for image, prediction in zip(images, answer.predictions, strict=True):
        assert not isinstance(prediction, InstanceError)
        wanted = expected(image, contract)
        assert [entry.probability for entry in prediction.top] == pytest.approx(
            sorted(wanted)[::-1], rel=1e-5
        )
        assert prediction.index == prediction.top[0].index == int(np.argmax(wanted))
        assert prediction.label == LABELS[prediction.index]
        assert prediction.probability == prediction.top[0].probability


async def test_a_raw_body_is_one_image(service: Running, image: bytes) -> None:
    contract = service.application.repository.resolve().metadata.input
    for content_type in ("image/png", "image/jpeg", "application/octet-stream"):
        response = await post(service, content=image, headers={"content-type": content_type})
        (prediction,) = PredictResponse.model_validate(response.json()).predictions
        assert not isinstance(prediction, InstanceError)
        assert prediction.probability == pytest.approx(max(expected(image, contract)), rel=1e-5)


async def test_a_big_image_is_decoded_in_the_pool(service: Running) -> None:
    generator = np.random.default_rng(3)
    big = png(generator.integers(0, 256, (300, 400, 1), dtype=np.uint8))
    contract = service.application.repository.resolve().metadata.input
    response = await post(service, content=big)
    (prediction,) = PredictResponse.model_validate(response.json()).predictions
    assert not isinstance(prediction, InstanceError)
    assert prediction.probability == pytest.approx(max(expected(big, contract)), rel=1e-5)


@pytest.mark.parametrize(("side", "where"), [(200, "engine"), (1100, "decode")])
async def test_of_what_is_decoded_by_its_batch_the_largest_are_not(
    service: Running, monkeypatch: pytest.MonkeyPatch, side: int, where: str
) -> None:
    """Or everybody in the batch would wait for it."""
    threads = []

    def noting(data: bytes, contract: InputContract, limits: DecodeLimits) -> Pixels:
        threads.append(threading.current_thread().name)
        return decode(data, contract, limits)

    monkeypatch.setattr(Batcher, "takes_encoded", True)
    monkeypatch.setattr(inference, "decode", noting)
    response = await post(service, content=png(np.zeros((side, side, 1), np.uint8)))
    assert response.status_code == 200
    assert [name.partition(" ")[0].partition("_")[0] for name in threads] == [where]


async def test_nothing_more_is_decoded_once_the_deadline_has_passed(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or a request of many large images would keep the pool for minutes after its client gave up."""
    patience_s, decoded = 0.05, []

    def slowly(data: bytes, contract: InputContract, limits: DecodeLimits) -> Pixels:
        decoded.append(data)
        time.sleep(2 * patience_s)  # the deadline is what is tried
        return decode(data, contract, limits)

    monkeypatch.setattr(inference, "decode", slowly)
    big = png(np.zeros((300, 400, 1), np.uint8))
    async with start() as service:
        files = [("f", ("x", big))] * 40
        headers = {"x-request-timeout-ms": f"{patience_s * 1000:g}"}
        problem_of(await post(service, files=files, headers=headers), Reason.DEADLINE_EXCEEDED)
        assert 0 < len(decoded) <= available_cpus()
        assert service.application.repository.resolve("tiny").batcher.in_use == 0


async def test_probabilities_are_not_rounded(service: Running, image: bytes) -> None:
    top = (await post(service, content=image)).json()["predictions"][0]["top"]
    probabilities = [entry["probability"] for entry in top]
    assert sum(probabilities) == pytest.approx(1, abs=1e-6)
    assert probabilities == [float(np.float32(value)) for value in probabilities]


@pytest.mark.parametrize(("top_k", "entries"), [("1", 1), ("2", 2), ("1000", 3), (None, 2)])
async def test_top_k(start: Start, image: bytes, top_k: str | None, entries: int) -> None:
    async with start(top_k=2) as service:
        response = await post(service, content=image, params={} if top_k is None else {"top_k": top_k})
    assert len(response.json()["predictions"][0]["top"]) == entries


async def test_multilabel_models_list_every_label_from_the_threshold_on(
    service: Running, image: bytes
) -> None:
    answer = (await post(service, content=image, params={"model": "tags"})).json()
    (prediction,) = answer["predictions"]
    above = [entry for entry in prediction["top"] if entry["probability"] >= 0.5]
    assert prediction["labels"] == above
    assert PredictResponse.model_validate(answer).model == "tags"


@pytest.mark.usefixtures("whenever_decoded")
async def test_a_bad_image_does_not_cost_the_others_their_prediction(service: Running, image: bytes) -> None:
    half = image[: len(image) // 2]
    files = [("a", ("a", b"no image")), ("b", ("b", image)), ("c", ("c", b"")), ("d", ("d", half))]
    response = await post(service, files=files)
    bad, good, empty, cut = PredictResponse.model_validate(response.json()).predictions
    assert response.status_code == 200
    assert isinstance(bad, InstanceError)
    assert isinstance(empty, InstanceError)
    assert isinstance(cut, InstanceError)
    assert bad.error.reason is empty.error.reason is cut.error.reason is Reason.UNDECODABLE_IMAGE
    assert not isinstance(good, InstanceError)
    assert service.metric("foldserve_rejected_total", reason="undecodable_image") == 3
    outcome = {"model": "tiny", "version": "1"}
    assert service.metric("foldserve_images_total", outcome="predicted", **outcome) == 1
    assert service.metric("foldserve_images_total", outcome="undecodable_image", **outcome) == 3


@pytest.mark.usefixtures("whenever_decoded")
async def test_if_every_image_is_bad_the_answer_is_the_first_ones_error(service: Running) -> None:
    response = await post(service, json={"images": ["!", base64.b64encode(b"no image").decode()]})
    problem_of(response, Reason.INVALID_INSTANCE)


@pytest.mark.usefixtures("whenever_decoded")
async def test_slots_of_bad_images_come_back(start: Start, image: bytes) -> None:
    async with start(max_queue_size=2, max_images_per_request=2) as service:
        for _ in range(5):
            await post(service, files=[("a", ("a", b"bad")), ("b", ("b", image))])
            await post(service, files=[("a", ("a", image[:60])), ("b", ("b", image))])
            await post(service, content=b"bad")
        assert service.application.repository.resolve().batcher.in_use == 0


async def test_requests_that_come_together_run_together(service: Running, image: bytes) -> None:
    service.gate.shut()
    first = asyncio.create_task(post(service, content=image))
    await service.gate.occupied()
    others = [asyncio.create_task(post(service, content=image)) for _ in range(8)]
    batcher = service.application.repository.resolve().batcher
    await until(lambda: batcher.depth == 8)
    service.gate.open()
    responses = await asyncio.gather(first, *others)
    assert {response.status_code for response in responses} == {200}
    assert service.gate.batch_sizes == [1, 8]


# What every answer says about itself.


@pytest.mark.parametrize("given", ["a", "0123-abc.DEF_:/+=@", "x" * 128])
async def test_a_well_formed_request_id_is_echoed(service: Running, image: bytes, given: str) -> None:
    response = await post(service, content=image, headers={"x-request-id": given})
    assert response.headers["x-request-id"] == response.json()["request_id"] == given


@pytest.mark.parametrize("given", ["", "a b", "x" * 129, "a;b", '"'])
async def test_an_ill_formed_request_id_is_replaced(service: Running, image: bytes, given: str) -> None:
    first = await post(service, content=image, headers={"x-request-id": given})
    second = await post(service, content=image, headers={"x-request-id": given})
    ids = {first.headers["x-request-id"], second.headers["x-request-id"]}
    assert given not in ids
    assert len(ids) == 2
    assert first.json()["request_id"] in ids


@pytest.mark.usefixtures("whenever_decoded")
async def test_server_timing_names_the_stages(service: Running, image: bytes) -> None:
    timing = (await post(service, content=image)).headers["server-timing"]
    stages = dict(re.findall(r"(\w+);dur=([\d.]+)", timing))
    assert list(stages) == ["decode", "queue", "inference", "total"]
    milliseconds = {name: float(text) for name, text in stages.items()}
    assert sum(milliseconds.values()) - milliseconds["total"] <= milliseconds["total"]


@pytest.mark.usefixtures("whenever_decoded")
async def test_metrics_count_what_was_done(service: Running, image: bytes) -> None:
    await post(service, content=image)
    await post(service, content=b"bad")
    route = {"route": "/predict", "method": "POST"}
    assert service.metric("foldserve_requests_total", code="200", **route) == 1
    assert service.metric("foldserve_requests_total", code="422", **route) == 1
    assert service.metric("foldserve_request_duration_seconds_count", route="/predict") == 2
    assert service.metric("foldserve_inflight_requests") == 0
    for stage, count in (("receive", 2), ("decode", 1), ("queue", 1), ("inference", 1), ("serialize", 1)):
        labels = {"model": "tiny", "version": "1", "stage": stage}
        assert service.metric("foldserve_stage_duration_seconds_count", **labels) == count, stage


# Every reason.

Case = Callable[[Running, bytes], Awaitable[httpx.Response]]


async def overloaded(service: Running, image: bytes) -> httpx.Response:
    async with full_queue(service, image):
        return await post(service, content=image)


async def past_deadline(service: Running, image: bytes) -> httpx.Response:
    service.gate.shut()
    first = asyncio.create_task(post(service, content=image))
    await service.gate.occupied()
    response = await post(service, content=image, headers={"x-request-timeout-ms": "50"})
    service.gate.open()
    assert (await first).status_code == 200
    return response


async def engine_fails(service: Running, image: bytes) -> httpx.Response:
    service.gate.error = InferenceFailed("secret cause")
    return await post(service, content=image)


async def draining(service: Running, image: bytes) -> httpx.Response:
    await service.application.close(grace_s=1)
    return await post(service, content=image)


CASES: dict[Reason, Case] = {
    Reason.MALFORMED_BODY: lambda service, image: post(service, content=b""),
    Reason.INVALID_PARAMETER: lambda service, image: post(service, content=image, params={"top_k": "0"}),
    Reason.MODEL_NOT_FOUND: lambda service, image: post(service, content=image, params={"model": "x"}),
    Reason.BODY_TOO_LARGE: lambda service, image: post(service, content=b"x" * 5000),
    Reason.TOO_MANY_PIXELS: lambda service, image: post(
        service, content=png(np.zeros((101, 100, 1), np.uint8))
    ),
    Reason.TOO_MANY_IMAGES: lambda service, image: post(service, json={"images": ["YQ=="] * 4}),
    Reason.UNSUPPORTED_MEDIA_TYPE: lambda service, image: post(
        service, content=image, headers={"content-type": "text/plain"}
    ),
    Reason.INVALID_INSTANCE: lambda service, image: post(service, json={"images": ["!"]}),
    Reason.UNDECODABLE_IMAGE: lambda service, image: post(service, content=b"no image"),
    Reason.OVERLOADED: overloaded,
    Reason.SHUTTING_DOWN: draining,
    Reason.DEADLINE_EXCEEDED: past_deadline,
    Reason.INFERENCE_FAILED: engine_fails,
}


class full_queue:  # noqa: N801 - reads as a statement
    """While it lasts, the only place in the queue is taken."""

    def __init__(self, service: Running, image: bytes) -> None:
        self._service = service
        self._image = image

    async def __aenter__(self) -> None:
        self._service.gate.shut()
        self._first = [asyncio.create_task(post(self._service, content=self._image)) for _ in range(3)]
        await until(lambda: self._service.application.repository.resolve().batcher.in_use == 3)

    async def __aexit__(self, *_: object) -> None:
        self._service.gate.open()
        assert {(await task).status_code for task in self._first} == {200}


async def until(condition: Callable[[], bool]) -> None:
    """Let the event loop run until the condition holds."""
    async with asyncio.timeout(TIMEOUT_S):
        while not condition():  # noqa: ASYNC110 - a batcher's state has no event
            await asyncio.sleep(0)


@pytest.mark.parametrize("reason", CASES, ids=lambda reason: reason.value)
async def test_each_reason_has_its_answer(start: Start, image: bytes, reason: Reason) -> None:
    limits = {"max_queue_size": 3, "max_images_per_request": 3, "max_body_bytes": 4096, "max_pixels": 10_000}
    async with start(**limits) as service:
        response = await CASES[reason](service, image)
        problem = problem_of(response, reason)
        assert ("retry-after" in response.headers) == (response.status_code == 503)
        assert "secret" not in response.text
        assert service.metric("foldserve_rejected_total", reason=reason.value) == 1
        assert problem.detail


@pytest.mark.parametrize(
    "query",
    ["topk=3", "top_k=", "top_k=1&top_k=2", "top_k=1.5", "top_k=-1", "top_k=1001", "top_k=²", "model="],
)
async def test_bad_query_parameters_are_named(service: Running, image: bytes, query: str) -> None:
    response = await post(service, content=image, params=query)
    assert query.partition("=")[0] in problem_of(response, Reason.INVALID_PARAMETER).detail


@pytest.mark.parametrize("value", ["0", "-1", "1.5", "soon", "3600001", ""])
async def test_a_bad_timeout_is_refused(service: Running, image: bytes, value: str) -> None:
    response = await post(service, content=image, headers={"x-request-timeout-ms": value})
    assert "X-Request-Timeout-Ms" in problem_of(response, Reason.INVALID_PARAMETER).detail


@pytest.mark.parametrize("query", ["model=tiny&version=1", "version=1", "model=tags&version=1"])
async def test_model_and_version_can_be_named(service: Running, image: bytes, query: str) -> None:
    assert (await post(service, content=image, params=query)).status_code == 200


@pytest.mark.parametrize("query", ["version=2", "model=tiny&version=x", "model=..%2Ftiny"])
async def test_other_versions_and_names_are_not_found(service: Running, image: bytes, query: str) -> None:
    problem_of(await post(service, content=image, params=query), Reason.MODEL_NOT_FOUND)


async def test_compressed_bodies_are_refused(service: Running, image: bytes) -> None:
    response = await post(service, content=image, headers={"content-encoding": "gzip"})
    assert "gzip" in problem_of(response, Reason.UNSUPPORTED_MEDIA_TYPE).detail


async def test_without_a_default_the_models_are_named(tmp_path: Path, start: Start, image: bytes) -> None:
    for name in ("one", "two"):
        write_model(tmp_path, name=name, model=TINY, labels=LABELS)
    async with start(repository=tmp_path, default_model=None) as service:
        problem = problem_of(await post(service, content=image), Reason.MODEL_NOT_FOUND)
        assert "one, two" in problem.detail


async def test_a_failing_batch_does_not_fail_the_next(service: Running, image: bytes) -> None:
    problem_of(await engine_fails(service, image), Reason.INFERENCE_FAILED)
    service.gate.error = None
    assert (await post(service, content=image)).status_code == 200


async def test_an_early_refusal_closes_the_connection(start: Start, image: bytes) -> None:
    async with start(max_body_bytes=1024) as service:
        refused = await post(service, content=b"x" * 100_000)
        short = await post(service, content=b"x" * 2000)
        answered = await post(service, content=image)
    assert refused.status_code == short.status_code == 413
    assert refused.headers["connection"] == "close"
    assert "connection" not in short.headers  # a new connection would cost more than reading it
    assert "connection" not in answered.headers


async def test_a_body_without_announced_length_is_stopped_at_the_limit(start: Start) -> None:
    sent = 0

    async def stream() -> object:  # an endless upload
        nonlocal sent
        while sent < 100:
            sent += 1
            yield b"x" * 512

    async with start(max_body_bytes=1024) as service:
        response = await post(service, content=stream())
    problem_of(response, Reason.BODY_TOO_LARGE)
    assert response.headers["connection"] == "close"
