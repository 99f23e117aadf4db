"""``tritonclient.http`` against the service: ``triton_http.py HOST:PORT EXPECTED.json``."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.http as triton
from tritonclient.utils import InferenceServerException


def pixels_input(
    pixels: Any, *, is_binary: bool = True, name: str = "images", datatype: str = "UINT8"
) -> Any:
    tensor = triton.InferInput(name, list(pixels.shape), datatype)
    tensor.set_data_from_numpy(pixels, binary_data=is_binary)
    return tensor


def refused(client: Any, model: str, tensor: Any, **options: Any) -> str:
    try:
        client.infer(model, [tensor], **options)
    except InferenceServerException as error:
        return f"{error.status()}: {error.message()}"
    raise AssertionError("was not refused")


def main(address: str, expected: dict[str, Any]) -> None:
    pixels = np.array(expected["pixels"], np.uint8)
    client = triton.InferenceServerClient(address)

    assert client.is_server_live()
    assert client.is_server_ready()
    assert client.is_model_ready("tiny")
    assert client.is_model_ready("tiny", "1")
    assert not client.is_model_ready("none")
    assert client.get_server_metadata()["name"] == "foldserve"
    metadata = client.get_model_metadata("tiny")
    assert metadata["inputs"] == [{"name": "images", "datatype": "UINT8", "shape": [-1, 8, 8, 1]}]
    assert [output["name"] for output in metadata["outputs"]] == ["logits", "probabilities"]

    (line,) = client.get_model_repository_index()
    assert (line["name"], line["version"], line["state"]) == ("tiny", "1", "READY")

    for n in (1, 8):
        for is_binary in (True, False):
            tensor = pixels_input(pixels[:n], is_binary=is_binary)
            wanted = [
                triton.InferRequestedOutput(name, binary_data=is_binary)
                for name in ("probabilities", "logits")
            ]
            for outputs in (wanted, None):
                result = client.infer("tiny", [tensor], outputs=outputs, request_id="order-7")
                assert result.get_response()["id"] == "order-7"
                for name in ("logits", "probabilities"):
                    np.testing.assert_allclose(result.as_numpy(name), expected[name][:n], rtol=1e-5)

    images = np.array([bytes.fromhex(image) for image in expected["images"]], np.object_)
    result = client.infer("tiny", [pixels_input(images, datatype="BYTES")])
    np.testing.assert_allclose(result.as_numpy("logits"), expected["logits"], rtol=1e-5)

    wanted = [triton.InferRequestedOutput("probabilities", class_count=2)]
    classes = client.infer("tiny", [pixels_input(pixels)], outputs=wanted).as_numpy("probabilities")
    assert classes.shape == (8, 2)
    assert [text.decode().split(":")[2] for text in classes[:, 0]] == expected["labels"]

    assert client.infer("tiny", [pixels_input(pixels)], timeout=5_000_000).as_numpy("logits") is not None
    handles = [client.async_infer("tiny", [pixels_input(pixels)]) for _ in range(4)]
    for handle in handles:
        np.testing.assert_allclose(handle.get_result().as_numpy("logits"), expected["logits"], rtol=1e-5)

    assert "got UINT8 [8, 8, 4, 2]" in refused(client, "tiny", pixels_input(pixels.reshape(8, 8, 4, 2)))
    wrong = pixels_input(pixels.astype(np.float32), datatype="FP32")
    assert refused(client, "tiny", wrong).startswith("400: input 'images' must be UINT8 [-1, 8, 8, 1]")
    assert "the request has 'image'" in refused(client, "tiny", pixels_input(pixels, name="image"))
    assert refused(client, "none", pixels_input(pixels)).startswith("404: no model 'none'")
    assert refused(client, "tiny", pixels_input(pixels), model_version="9").startswith("404: ")
    no_output = [triton.InferRequestedOutput("scores")]
    assert "no output 'scores'" in refused(client, "tiny", pixels_input(pixels), outputs=no_output)
    client.close()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
