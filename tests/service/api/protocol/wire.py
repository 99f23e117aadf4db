"""The Open Inference Protocol as a client writes and reads it, in its own words."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import httpx
import numpy as np
from numpy.typing import NDArray

LENGTH = "inference-header-content-length"


def pixels_input(pixels: NDArray[np.uint8], **changes: Any) -> dict[str, Any]:
    """The input for uint8 [N, H, W, C], its data in JSON."""
    tensor = {"name": "images", "datatype": "UINT8", "shape": list(pixels.shape), "data": pixels.tolist()}
    return {**tensor, **changes}


def bytes_raw(elements: Sequence[bytes]) -> bytes:
    """A BYTES tensor in raw form."""
    return b"".join(len(element).to_bytes(4, "little") + element for element in elements)


def binary_request(name: str, datatype: str, shape: Sequence[int], raw: bytes, **rest: Any) -> dict[str, Any]:
    """Arguments of a POST whose one tensor is behind its JSON."""
    tensor = {
        "name": name,
        "datatype": datatype,
        "shape": list(shape),
        "parameters": {"binary_data_size": len(raw)},
    }
    head = json.dumps({"inputs": [tensor], **rest}).encode()
    return {"content": head + raw, "headers": {LENGTH: str(len(head))}}


def tensors_of(response: httpx.Response) -> dict[str, Any]:
    """Output → its values: an array, or a list of rows of texts. Every byte of the body is accounted for."""
    assert response.status_code == 200, response.text
    length = int(response.headers.get(LENGTH, len(response.content)))
    assert response.headers["content-type"] == (
        "application/octet-stream" if LENGTH in response.headers else "application/json"
    )
    raw, found = response.content[length:], {}
    for output in json.loads(response.content[:length])["outputs"]:
        size = output.get("parameters", {}).get("binary_data_size")
        assert (size is None) == ("data" in output)
        found[output["name"]] = _values(output, None if size is None else raw[:size])
        raw = raw[size or 0 :]
    assert raw == b""
    return found


def _values(output: dict[str, Any], raw: bytes | None) -> Any:
    rows, columns = output["shape"]
    if output["datatype"] == "FP32":
        flat = np.array(output["data"], np.float32) if raw is None else np.frombuffer(raw, "<f4")
        return flat.reshape(rows, columns)
    assert output["datatype"] == "BYTES"
    texts = output["data"] if raw is None else [text.decode() for text in _elements(raw)]
    assert len(texts) == rows * columns
    return [texts[row * columns : (row + 1) * columns] for row in range(rows)]


def _elements(raw: bytes) -> list[bytes]:
    elements = []
    while raw:
        size = int.from_bytes(raw[:4], "little")
        elements.append(raw[4 : 4 + size])
        raw = raw[4 + size :]
    return elements
