"""TensorFlow Serving's form: its instances, its predictions, its errors."""

from __future__ import annotations

import asyncio
import base64
from typing import Any

import httpx
import numpy as np
import pytest

from service.api.protocol.documents import InstancesRequest, InstancesResponse
from service.errors import Reason
from tests.model_files import png
from tests.service.api.conftest import TINY, Running, Start
from tests.service.api.protocol.test_infer import problem_of
from tests.service.api.test_predict import softmax

TIMEOUT_S = 10.0
PIXELS = TINY.image(1)
B64 = {"b64": base64.b64encode(png(PIXELS)).decode()}
FORMS: dict[str, Any] = {
    "encoded": B64,
    "named": {"images": B64},
    "pixels": PIXELS.tolist(),
    "named pixels": {"images": PIXELS.tolist()},
}


async def predict(service: Running, body: object, path: str = "/v1/models/tiny:predict") -> httpx.Response:
    async with asyncio.timeout(TIMEOUT_S):
        return await service.client.post(path, json=body)


@pytest.mark.parametrize("form", FORMS)
async def test_every_form_gives_the_probabilities(service: Running, form: str) -> None:
    body = {"instances": [FORMS[form]] * 3}
    InstancesRequest.model_validate(body)
    response = await predict(service, body)
    answer = InstancesResponse.model_validate(response.json())
    wanted = softmax(TINY.logits(PIXELS[np.newaxis])[0])
    np.testing.assert_allclose(answer.predictions, [wanted] * 3, rtol=1e-5)


async def test_a_version_may_be_named_and_the_signature_said(service: Running) -> None:
    body = {"signature_name": "serving_default", "instances": [B64]}
    response = await predict(service, body, "/v1/models/tiny/versions/1:predict")
    assert response.status_code == 200
    route = "/v1/models/{model}/versions/{version}:predict"
    assert service.metric("foldserve_requests_total", route=route, method="POST", code="200") == 1


REFUSED: dict[str, tuple[Any, str]] = {
    "signature": ({"instances": [B64], "signature_name": "classify"}, "one signature, 'serving_default'"),
    "number": ({"instances": [7]}, 'instance 0 must be {"b64"'),
    "text": ({"instances": [B64, "x"]}, 'instance 1 must be {"b64"'),
    "b64 of a number": ({"instances": [{"b64": 7}]}, 'instance 0 must be {"b64"'),
    "bad base64": ({"instances": [B64, {"b64": "?"}]}, "instance 1: not base64"),
    "shape": ({"instances": [[[0]]]}, "not nested as its shape, [8, 8, 1]"),
    "pixel": ({"instances": [np.full((8, 8, 1), 256).tolist()]}, "whole numbers from 0 to 255"),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_a_wrong_instance_is_named(service: Running, case: str) -> None:
    body, message = REFUSED[case]
    problem = problem_of(await predict(service, body), Reason.INVALID_INSTANCE, 400)
    assert message in problem.error
    assert service.application.repository.resolve("tiny").batcher.in_use == 0


@pytest.mark.parametrize("body", [[], {}, {"inputs": []}, {"instances": []}, {"instances": {}}])
async def test_anything_but_the_row_form_is_malformed(service: Running, body: object) -> None:
    problem_of(await predict(service, body), Reason.MALFORMED_BODY, 400)


async def test_no_json_is_malformed(service: Running) -> None:
    response = await service.client.post("/v1/models/tiny:predict", content=b"{")
    problem_of(response, Reason.MALFORMED_BODY, 400)


async def test_a_bad_image_is_the_whole_requests_and_named(service: Running) -> None:
    bad = {"b64": base64.b64encode(b"no image").decode()}
    response = await predict(service, {"instances": [B64, bad]})
    assert problem_of(response, Reason.UNDECODABLE_IMAGE, 422).error.startswith("image 1: ")


async def test_too_many_instances_are_refused(start: Start) -> None:
    async with start(max_images_per_request=2) as service:
        problem_of(await predict(service, {"instances": [B64] * 3}), Reason.TOO_MANY_IMAGES, 413)


async def test_an_unknown_model_is_not_found(service: Running) -> None:
    response = await predict(service, {"instances": [B64]}, "/v1/models/none:predict")
    problem_of(response, Reason.MODEL_NOT_FOUND, 404)
