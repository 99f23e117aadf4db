"""``tritonclient.grpc`` against the service: ``triton_grpc.py HOST:PORT EXPECTED.json``."""

from __future__ import annotations

import json
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException


def pixels_input(pixels: Any, *, name: str = "images", datatype: str = "UINT8") -> Any:
    tensor = triton.InferInput(name, list(pixels.shape), datatype)
    tensor.set_data_from_numpy(pixels)
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
    assert client.get_server_metadata().name == "foldserve"
    (images,) = client.get_model_metadata("tiny").inputs
    assert (images.name, images.datatype, list(images.shape)) == ("images", "UINT8", [-1, 8, 8, 1])

    (line,) = client.get_model_repository_index().models
    assert (line.name, line.version, line.state) == ("tiny", "1", "READY")

    wanted = [triton.InferRequestedOutput(name) for name in ("probabilities", "logits")]
    for n in (1, 8):
        for outputs in (wanted, None):
            result = client.infer("tiny", [pixels_input(pixels[:n])], outputs=outputs, request_id="order-7")
            assert result.get_response().id == "order-7"
            for name in ("logits", "probabilities"):
                np.testing.assert_allclose(result.as_numpy(name), expected[name][:n], rtol=1e-5)

    images = np.array([bytes.fromhex(image) for image in expected["images"]], np.object_)
    result = client.infer("tiny", [pixels_input(images, datatype="BYTES")])
    np.testing.assert_allclose(result.as_numpy("logits"), expected["logits"], rtol=1e-5)

    wanted = [triton.InferRequestedOutput("probabilities", class_count=2)]
    classes = client.infer("tiny", [pixels_input(pixels)], outputs=wanted).as_numpy("probabilities")
    assert classes.shape == (8, 2)
    assert [text.decode().split(":")[2] for text in classes[:, 0]] == expected["labels"]

    for options in ({"client_timeout": 5.0}, {"timeout": 5_000_000}, {"compression_algorithm": "gzip"}):
        result = client.infer("tiny", [pixels_input(pixels)], **options)
        np.testing.assert_allclose(result.as_numpy("logits"), expected["logits"], rtol=1e-5)

    answers: list[tuple[Any, Any]] = []
    came = threading.Event()

    def on_answer(result: Any, error: Any) -> None:
        answers.append((result, error))
        came.set()

    client.async_infer("tiny", [pixels_input(pixels)], on_answer)
    assert came.wait(10)
    assert answers[0][1] is None

    invalid = "StatusCode.INVALID_ARGUMENT: "
    wrong = pixels_input(pixels.reshape(8, 8, 4, 2))
    assert "got UINT8 [8, 8, 4, 2]" in refused(client, "tiny", wrong)
    wrong = pixels_input(pixels.astype(np.float32), datatype="FP32")
    assert refused(client, "tiny", wrong).startswith(invalid + "input 'images' must be UINT8 [-1, 8, 8, 1]")
    assert "the request has 'image'" in refused(client, "tiny", pixels_input(pixels, name="image"))
    assert refused(client, "none", pixels_input(pixels)).startswith("StatusCode.NOT_FOUND: no model 'none'")
    no_output = [triton.InferRequestedOutput("scores")]
    assert "no output 'scores'" in refused(client, "tiny", pixels_input(pixels), outputs=no_output)
    client.close()


if __name__ == "__main__":
    main(sys.argv[1], json.loads(Path(sys.argv[2]).read_text()))
