"""KServe's ``InferenceGRPCClient`` against the service: ``kserve_grpc.py HOST:PORT EXPECTED.json``."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path
from typing import Any

import grpc
import numpy as np
from kserve import InferenceGRPCClient, InferInput, InferRequest


def request_of(pixels: Any, *, is_raw: bool, name: str = "images", model: str = "tiny") -> Any:
    datatype = "UINT8" if pixels.dtype == np.uint8 else "FP32"
    tensor = InferInput(name, list(pixels.shape), datatype)
    tensor.set_data_from_numpy(pixels, binary_data=is_raw)
    return InferRequest(model, [tensor], request_id="order-7")


async def refused(client: Any, request: Any) -> tuple[Any, str]:
    try:
        await client.infer(request)
    except grpc.RpcError as error:
        return error.code(), error.details() or ""
    raise AssertionError("was not refused")


async def main(address: str, expected: dict[str, Any]) -> None:
    pixels = np.array(expected["pixels"], np.uint8)
    async with InferenceGRPCClient(address) as client:
        assert await client.is_server_live()
        assert await client.is_server_ready()
        assert await client.is_model_ready("tiny")
        assert not await client.is_model_ready("none")

        for n in (1, 8):
            for is_raw in (True, False):
                answer = await client.infer(request_of(pixels[:n], is_raw=is_raw))
                assert (answer.id, answer.model_name, answer.model_version) == ("order-7", "tiny", "1")
                for output in answer.outputs:
                    np.testing.assert_allclose(output.as_numpy(), expected[output.name][:n], rtol=1e-5)

        invalid = grpc.StatusCode.INVALID_ARGUMENT
        code, details = await refused(client, request_of(pixels.reshape(8, 8, 4, 2), is_raw=True))
        assert (code, details.endswith("got UINT8 [8, 8, 4, 2]")) == (invalid, True)
        assert (await refused(client, request_of(pixels.astype(np.float32), is_raw=True)))[0] == invalid
        assert (await refused(client, request_of(pixels, is_raw=True, name="image")))[0] == invalid
        unknown = request_of(pixels, is_raw=True, model="none")
        assert (await refused(client, unknown))[0] == grpc.StatusCode.NOT_FOUND


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text())))
