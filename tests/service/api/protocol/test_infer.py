"""The Open Inference Protocol's hot route: right answers in every form, a stated refusal for all else."""

from __future__ import annotations

import asyncio
import base64
import re
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from service.api.protocol.documents import InferRequestBody, InferResponseBody
from service.api.protocol.tensors import InputTensor, instances_of
from service.errors import InferenceFailed, Reason
from service.schemas import Problem
from tests.model_files import png
from tests.service.api.conftest import LABELS, TINY, Running, Start
from tests.service.api.protocol.wire import LENGTH, binary_request, bytes_raw, pixels_input, tensors_of
from tests.service.api.test_predict import softmax

TIMEOUT_S = 10.0
ROUTE = "/v2/models/{model}/infer"
ONE = TINY.image(1)[np.newaxis]


def batch(n: int) -> NDArray[np.uint8]:
    return np.stack([TINY.image(seed) for seed in range(n)])


async def infer(service: Running, path: str = "/v2/models/tiny/infer", **request: Any) -> httpx.Response:
    async with asyncio.timeout(TIMEOUT_S):
        return await service.client.post(path, **request)


def problem_of(response: httpx.Response, reason: Reason, status: int) -> Problem:
    """The response's problem; its ``error`` is what clients of the protocol show."""
    problem = Problem.model_validate(response.json())
    assert (problem.reason, problem.status, response.status_code) == (reason, status, status)
    assert problem.error == problem.detail
    return problem


# Right answers.


def json_request(pixels: NDArray[np.uint8], **rest: Any) -> dict[str, Any]:
    body = {"inputs": [pixels_input(pixels)], **rest}
    InferRequestBody.model_validate(body)
    return {"json": body}


def flat_request(pixels: NDArray[np.uint8], **rest: Any) -> dict[str, Any]:
    return {"json": {"inputs": [pixels_input(pixels, data=pixels.reshape(-1).tolist())], **rest}}


def raw_request(pixels: NDArray[np.uint8], **rest: Any) -> dict[str, Any]:
    return binary_request("images", "UINT8", pixels.shape, pixels.tobytes(), **rest)


def encoded_request(pixels: NDArray[np.uint8], **rest: Any) -> dict[str, Any]:
    return binary_request("images", "BYTES", [len(pixels)], bytes_raw(list(map(png, pixels))), **rest)


def column_request(pixels: NDArray[np.uint8], **rest: Any) -> dict[str, Any]:
    return binary_request("images", "BYTES", [len(pixels), 1], bytes_raw(list(map(png, pixels))), **rest)


def base64_request(pixels: NDArray[np.uint8], **rest: Any) -> dict[str, Any]:
    texts = [base64.b64encode(png(image)).decode() for image in pixels]
    tensor = {"name": "images", "datatype": "BYTES", "shape": [len(texts)], "data": texts}
    return {"json": {"inputs": [tensor], **rest}}


def base64_column_request(pixels: NDArray[np.uint8], **rest: Any) -> dict[str, Any]:
    texts = [[base64.b64encode(png(image)).decode()] for image in pixels]
    tensor = {"name": "images", "datatype": "BYTES", "shape": [len(texts), 1], "data": texts}
    return {"json": {"inputs": [tensor], **rest}}


FORMS = {
    "nested": json_request,
    "flat": flat_request,
    "binary": raw_request,
    "encoded": encoded_request,
    "encoded column": column_request,
    "base64": base64_request,
    "base64 column": base64_column_request,
}


@pytest.mark.parametrize("n", [1, 8])
@pytest.mark.parametrize("is_binary", [False, True], ids=["json answer", "binary answer"])
@pytest.mark.parametrize("form", FORMS)
async def test_every_form_gives_the_engines_own_answer(
    service: Running, form: str, is_binary: bool, n: int
) -> None:
    pixels = batch(n)
    parameters = {"binary_data_output": is_binary}
    response = await infer(service, **FORMS[form](pixels, parameters=parameters))
    assert (LENGTH in response.headers) == is_binary
    found = tensors_of(response)
    assert list(found) == ["logits", "probabilities"]
    np.testing.assert_allclose(found["logits"], TINY.logits(pixels), rtol=1e-5)
    wanted = [softmax(row) for row in TINY.logits(pixels)]
    np.testing.assert_allclose(found["probabilities"], wanted, rtol=1e-5)


async def test_the_answer_is_the_documented_one(service: Running) -> None:
    response = await infer(service, **raw_request(ONE, id="abc"))
    answer = InferResponseBody.model_validate(response.json())
    assert (answer.model_name, answer.model_version, answer.id) == ("tiny", "1", "abc")
    assert [output.shape for output in answer.outputs] == [[1, 3], [1, 3]]


async def test_only_what_is_wanted_comes_back_in_that_order_and_form(service: Running) -> None:
    wanted = [
        {"name": "probabilities", "parameters": {"binary_data": True}},
        {"name": "logits"},
        {"name": "probabilities", "parameters": {"classification": 2, "binary_data": True}},
    ]
    response = await infer(service, **raw_request(ONE, outputs=wanted[:2]))
    assert list(tensors_of(response)) == ["probabilities", "logits"]
    response = await infer(service, **raw_request(ONE, outputs=wanted[2:]))
    (row,) = tensors_of(response)["probabilities"]
    assert len(row) == 2


@pytest.mark.parametrize("name", ["logits", "probabilities"])
@pytest.mark.parametrize("is_binary", [False, True])
async def test_classification_names_the_best_with_their_values(
    service: Running, name: str, is_binary: bool
) -> None:
    pixels = batch(4)
    parameters = {"classification": 2, "binary_data": is_binary}
    response = await infer(service, **raw_request(pixels, outputs=[{"name": name, "parameters": parameters}]))
    logits = TINY.logits(pixels)
    values = logits if name == "logits" else np.array([softmax(row) for row in logits])
    for row, texts in zip(values, tensors_of(response)[name], strict=True):
        best = np.argsort(-row)[:2].tolist()
        parts = [text.split(":") for text in texts]
        assert [(int(index), label) for _, index, label in parts] == [
            (index, LABELS[index]) for index in best
        ]
        np.testing.assert_allclose([float(value) for value, _, _ in parts], row[best], rtol=1e-5)


async def test_no_more_classes_than_there_are(service: Running) -> None:
    outputs = [{"name": "logits", "parameters": {"classification": 99}}]
    (row,) = tensors_of(await infer(service, **raw_request(ONE, outputs=outputs)))["logits"]
    assert len(row) == len(LABELS)


async def test_a_version_may_be_named(service: Running) -> None:
    response = await infer(service, "/v2/models/tiny/versions/1/infer", **raw_request(ONE))
    assert response.json()["model_version"] == "1"
    route = "/v2/models/{model}/versions/{version}/infer"
    assert service.metric("foldserve_requests_total", route=route, method="POST", code="200") == 1


async def test_instances_of_a_request_run_together_and_are_counted(service: Running) -> None:
    await infer(service, **raw_request(batch(8)))
    assert service.gate.batch_sizes[-1] == 8
    assert service.metric("foldserve_images_total", model="tiny", version="1", outcome="predicted") == 8
    assert service.metric("foldserve_requests_total", route=ROUTE, method="POST", code="200") == 1


async def test_the_id_names_the_request_unless_a_header_does(service: Running) -> None:
    answers = [
        await infer(service, **raw_request(ONE, id="order-7")),
        await infer(service, **json_request(ONE, id="order-7"), headers={"x-request-id": "mine"}),
        await infer(service, **raw_request(ONE, id="not\nwell formed")),
        await infer(service, **raw_request(ONE)),
    ]
    ids = [(answer.headers["x-request-id"], answer.json()["id"]) for answer in answers]
    assert ids[:2] == [("order-7", "order-7"), ("mine", "order-7")]
    assert ids[2][1] == "not\nwell formed"
    assert ids[2][0] != ids[2][1]
    assert ids[3][0] == ids[3][1]


async def test_the_answer_says_what_took_so_long(service: Running) -> None:
    timing = (await infer(service, **raw_request(ONE))).headers["server-timing"]
    assert [part.partition(";")[0] for part in timing.split(", ")] == [
        "decode",
        "queue",
        "inference",
        "total",
    ]


def test_binary_pixels_are_not_copied() -> None:
    body = batch(8).tobytes()
    instances = instances_of(InputTensor("images", "UINT8", [8, 8, 8, 1], memoryview(body)))
    whole = np.frombuffer(body, np.uint8)
    for position, instance in enumerate(instances):
        assert isinstance(instance, np.ndarray)
        assert np.shares_memory(instance, whole[position * 64 : (position + 1) * 64])


# Refusals.

TEXT = base64.b64encode(png(TINY.image(1))).decode()


def changed(**changes: Any) -> dict[str, Any]:
    return {"json": {"inputs": [pixels_input(ONE, **changes)]}}


WRONG_TENSORS: dict[str, tuple[dict[str, Any], str]] = {
    "no input": ({"json": {"inputs": []}}, "one input, 'images'; the request has none"),
    "two inputs": ({"json": {"inputs": [pixels_input(ONE)] * 2}}, "has 'images', 'images'"),
    "name": (changed(name="image"), "has 'image'"),
    "datatype": (changed(datatype="FP32"), r"must be UINT8 \[-1, 8, 8, 1\].*; got FP32 \[1, 8, 8, 1\]"),
    "lower case": (changed(datatype="uint8"), "got uint8"),
    "shape": (changed(shape=[1, 8, 8, 3]), r"got UINT8 \[1, 8, 8, 3\]"),
    "no batch dimension": (changed(shape=[8, 8, 1]), r"got UINT8 \[8, 8, 1\]"),
    "no shape": (changed(shape=[]), r"got UINT8 \[\]"),
    "no instance": (changed(shape=[0, 8, 8, 1], data=[]), "holds no instance"),
    "scalar text": (changed(datatype="BYTES", shape=[], data=[TEXT]), "holds no instance"),
    "negative": (changed(shape=[-1, 8, 8, 1]), "holds no instance"),
    "too few": (changed(data=[0] * 63), r"a shape of \[1, 8, 8, 1\] is 64 elements; got 63"),
    "too many": (changed(data=[0] * 65), "got 65"),
    "nested otherwise": (changed(data=np.zeros((1, 8, 1, 8)).tolist()), "not nested as its shape"),
    "ragged": (changed(data=[[[[0]]], [[[0], [0]]]]), "not nested as its shape"),
    "half nested": (changed(data=[[0, [1]]]), "not nested as its shape"),
    "over 255": (changed(data=[256] * 64), "whole numbers from 0 to 255"),
    "below 0": (changed(data=[-1] * 64), "whole numbers from 0 to 255"),
    "fractions": (changed(data=[0.5] * 64), "whole numbers from 0 to 255"),
    "texts": (changed(data=["0"] * 64), "whole numbers from 0 to 255"),
    "nothing": (changed(data=[None] * 64), "whole numbers from 0 to 255"),
    "numbers as bytes": (
        changed(datatype="BYTES", shape=[1], data=[7]),
        "element 0 must be a string of base64",
    ),
    "bad base64": (changed(datatype="BYTES", shape=[2], data=[TEXT, "ä"]), "element 1: not base64"),
    "elements": (changed(datatype="BYTES", shape=[2], data=[TEXT]), "got 1 elements"),
    "shared memory": (changed(parameters={"shared_memory_region": "x"}), "shared memory is not offered"),
    "output": (
        {"json": {"inputs": [pixels_input(ONE)], "outputs": [{"name": "scores"}]}},
        "no output 'scores'",
    ),
    "classes": (
        raw_request(ONE, outputs=[{"name": "logits", "parameters": {"classification": 0}}]),
        "'classification' must be a whole number from 1 on, not 0",
    ),
    "output twice": (
        raw_request(
            ONE, outputs=[{"name": "logits"}, {"name": "logits", "parameters": {"classification": 1}}]
        ),
        "an output is asked for twice",
    ),
    "flag": (
        raw_request(ONE, parameters={"binary_data_output": 1}),
        "'binary_data_output' must be true or false",
    ),
    "timeout": (raw_request(ONE, parameters={"timeout": "1s"}), "'timeout' must be whole microseconds"),
    "shared output": (
        raw_request(ONE, outputs=[{"name": "logits", "parameters": {"shared_memory_region": "x"}}]),
        "output 'logits': shared memory is not offered",
    ),
    "raw too short": (binary_request("images", "UINT8", [1, 8, 8, 1], b"x" * 63), "got 63"),
    "raw ends within": (
        binary_request("images", "BYTES", [2], bytes_raw([b"x"])),
        "ends within element 1 of 2",
    ),
    "raw ends within a length": (binary_request("images", "BYTES", [1], b"\1\0"), "ends within element 0"),
    "raw goes on": (
        binary_request("images", "BYTES", [1], bytes_raw([b"x", b"y"])),
        "5 bytes behind the last",
    ),
}


@pytest.mark.parametrize("case", WRONG_TENSORS)
async def test_a_wrong_tensor_is_told_what_was_expected(service: Running, case: str) -> None:
    request, message = WRONG_TENSORS[case]
    problem = problem_of(await infer(service, **request), Reason.INVALID_INSTANCE, 400)
    assert re.search(message, problem.error), problem.error
    assert service.application.repository.resolve("tiny").batcher.in_use == 0


HEAD = b'{"inputs": []}'
MALFORMED: dict[str, tuple[dict[str, Any], str]] = {
    "empty": ({"content": b""}, "the body is no JSON"),
    "no json": ({"content": b"{"}, "the body is no JSON"),
    "no object": ({"content": b"[]"}, "the body must be a JSON object"),
    "no inputs": ({"json": {}}, '"inputs" must be a list'),
    "input no object": ({"json": {"inputs": [1]}}, "an input must be a JSON object"),
    "no name": ({"json": {"inputs": [{"datatype": "UINT8"}]}}, '"name", a string'),
    "no datatype": ({"json": {"inputs": [{"name": "images"}]}}, '"datatype", a string'),
    "no shape": (changed(shape=None), '"shape" of input'),
    "shape of texts": (changed(shape=["1"]), "list of whole numbers"),
    "shape of flags": (changed(shape=[True, 8, 8, 1]), "list of whole numbers"),
    "no data": (changed(data=None), '"data" of input'),
    "parameters": (changed(parameters=[]), '"parameters" of input'),
    "id": ({"json": {"id": 7, "inputs": []}}, '"id" must be a string'),
    "outputs": ({"json": {"inputs": [], "outputs": {}}}, '"outputs" must be a list'),
    "length of no number": ({"content": HEAD, "headers": {LENGTH: "x"}}, "must be a number from 1"),
    "length of nothing": ({"content": HEAD, "headers": {LENGTH: "0"}}, "must be a number from 1"),
    "length beyond": ({"content": HEAD, "headers": {LENGTH: "99"}}, "the body's 14 bytes, not '99'"),
    "length within": ({"content": HEAD, "headers": {LENGTH: "9"}}, "the body is no JSON"),
    "bytes left": ({"content": HEAD + b"xyz", "headers": {LENGTH: "14"}}, "3 bytes follow the JSON"),
    "size beyond": (changed(parameters={"binary_data_size": 5}), "is 5; 0 bytes are there"),
    "size of a flag": (changed(parameters={"binary_data_size": True}), "is True"),
    "size below 0": (changed(parameters={"binary_data_size": -1}), "is -1"),
}


@pytest.mark.parametrize("case", MALFORMED)
async def test_a_malformed_body_is_told_where(service: Running, case: str) -> None:
    request, message = MALFORMED[case]
    problem = problem_of(await infer(service, **request), Reason.MALFORMED_BODY, 400)
    assert message in problem.error


@pytest.mark.parametrize("path", ["/v2/models/none/infer", "/v2/models/tiny/versions/9/infer"])
async def test_an_unknown_model_or_version_is_not_found(service: Running, path: str) -> None:
    problem_of(await infer(service, path, **raw_request(ONE)), Reason.MODEL_NOT_FOUND, 404)


async def test_a_bad_image_is_the_whole_requests_and_named(service: Running) -> None:
    raw = bytes_raw([png(TINY.image(1)), b"no image"])
    response = await infer(service, **binary_request("images", "BYTES", [2], raw))
    assert problem_of(response, Reason.UNDECODABLE_IMAGE, 422).error.startswith("image 1: ")
    assert service.application.repository.resolve("tiny").batcher.in_use == 0


async def test_too_many_instances_are_refused_by_their_shape(start: Start) -> None:
    async with start(max_images_per_request=4) as service:
        problem_of(await infer(service, **raw_request(batch(5))), Reason.TOO_MANY_IMAGES, 413)


async def test_compressed_bodies_are_not_taken(service: Running) -> None:
    request = raw_request(ONE)
    request["headers"]["content-encoding"] = "gzip"
    problem_of(await infer(service, **request), Reason.UNSUPPORTED_MEDIA_TYPE, 415)


async def test_a_failed_batch_fails_the_request_without_its_cause(service: Running) -> None:
    service.gate.error = InferenceFailed("the cause")
    response = await infer(service, **raw_request(ONE))
    problem_of(response, Reason.INFERENCE_FAILED, 500)
    assert "the cause" not in response.text


@pytest.mark.parametrize(
    "impatience",
    [{"parameters": {"timeout": 30_000}}, {"headers": {"x-request-timeout-ms": "30"}}],
    ids=["parameter", "header"],
)
async def test_either_patience_is_a_deadline(service: Running, impatience: dict[str, Any]) -> None:
    service.gate.shut()
    first = asyncio.create_task(infer(service, **raw_request(ONE)))
    await service.gate.occupied()
    request = json_request(ONE, **{key: value for key, value in impatience.items() if key == "parameters"})
    response = await infer(service, **request, headers=impatience.get("headers"))
    assert response.json()["reason"] in (Reason.DEADLINE_EXCEEDED, Reason.OVERLOADED)
    service.gate.open()
    assert (await first).status_code == 200


async def test_what_does_not_fit_is_refused_at_the_door(start: Start) -> None:
    async with start(max_queue_size=4, max_images_per_request=4) as service:
        service.gate.shut()
        first = asyncio.create_task(infer(service, **raw_request(batch(3))))
        await service.gate.occupied()
        refused = await infer(service, **raw_request(batch(2)))
        problem_of(refused, Reason.OVERLOADED, 503)
        assert int(refused.headers["retry-after"]) >= 1
        service.gate.open()
        assert (await first).status_code == 200
