"""KServe's ``InferenceRESTClient`` against the service: ``kserve_http.py HOST:PORT EXPECTED.json``."""

from __future__ import annotations

import asyncio
import base64
import json
import sys
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from kserve import InferenceRESTClient, InferInput, InferRequest
from kserve.inference_client import RESTConfig
from kserve.protocol.infer_type import RequestedOutput


def request_of(pixels: Any, *, is_binary: bool, name: str = "images", datatype: str = "UINT8") -> Any:
    tensor = InferInput(name, list(pixels.shape), datatype)
    tensor.set_data_from_numpy(pixels, binary_data=is_binary)
    outputs = [
        RequestedOutput(output, parameters={"binary_data": is_binary})
        for output in ("logits", "probabilities")
    ]
    return InferRequest("tiny", [tensor], request_id="order-7", request_outputs=outputs)


async def refused(client: Any, url: str, data: Any, model: str = "tiny") -> tuple[int, str]:
    try:
        await client.infer(url, data, model_name=model)
    except httpx.HTTPStatusError as error:
        return error.response.status_code, error.response.json()["error"]
    raise AssertionError("was not refused")


async def main(address: str, expected: dict[str, Any]) -> None:
    url = f"http://{address}"
    pixels = np.array(expected["pixels"], np.uint8)
    client = InferenceRESTClient(RESTConfig(protocol="v2"))

    assert await client.is_server_live(url)
    assert await client.is_server_ready(url)
    assert await client.is_model_ready(url, "tiny")
    assert not await client.is_model_ready(url, "none")

    for n in (1, 8):
        for is_binary in (True, False):
            answer = await client.infer(url, request_of(pixels[:n], is_binary=is_binary), model_name="tiny")
            assert (answer.id, answer.model_name) == ("order-7", "tiny")
            for output in answer.outputs:
                np.testing.assert_allclose(output.as_numpy(), expected[output.name][:n], rtol=1e-5)

    wrong = request_of(pixels.reshape(8, 8, 4, 2), is_binary=True)
    assert (await refused(client, url, wrong))[1].endswith("got UINT8 [8, 8, 4, 2]")
    wrong = request_of(pixels.astype(np.float32), is_binary=False, datatype="FP32")
    assert (await refused(client, url, wrong))[0] == 400
    wrong = request_of(pixels, is_binary=True, name="image")
    assert "the request has 'image'" in (await refused(client, url, wrong))[1]
    assert (await refused(client, url, request_of(pixels, is_binary=True), "none"))[0] == 404
    await client.close()

    first = InferenceRESTClient(RESTConfig(protocol="v1"))
    assert await first.is_model_ready(url, "tiny")
    instances = [{"b64": base64.b64encode(bytes.fromhex(image)).decode()} for image in expected["images"]]
    answer = await first.infer(url, {"instances": instances}, model_name="tiny")
    np.testing.assert_allclose(answer["predictions"], expected["probabilities"], rtol=1e-5)
    await first.close()


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text())))
