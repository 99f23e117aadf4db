"""Triton's clients as operators: ``triton_repository.py http|grpc HOST:PORT KEY``."""

from __future__ import annotations

import importlib
import sys
from typing import Any

from tritonclient.utils import InferenceServerException


def refused(ask: Any, *arguments: Any, **options: Any) -> str:
    try:
        ask(*arguments, **options)
    except InferenceServerException as error:
        return f"{error.status()}: {error.message()}"
    raise AssertionError("was not refused")


def states(client: Any) -> list[tuple[str, str]]:
    index = client.get_model_repository_index()
    lines = index if isinstance(index, list) else [{"name": m.name, "state": m.state} for m in index.models]
    return [(line["name"], line["state"]) for line in lines]


def main(protocol: str, address: str, key: str) -> None:
    triton: Any = importlib.import_module(f"tritonclient.{protocol}")
    client = triton.InferenceServerClient(address)
    keyed = {"headers": {"x-api-key": key}}

    client.unload_model("tiny", **keyed)
    assert not client.is_model_ready("tiny")
    assert states(client) == [("other", "READY"), ("tiny", "UNAVAILABLE")]
    client.load_model("tiny", **keyed)
    assert client.is_model_ready("tiny")
    assert states(client) == [("other", "READY"), ("tiny", "READY")]

    assert "no model 'none'" in refused(client.load_model, "none", **keyed)
    assert "'config' is not taken" in refused(client.load_model, "tiny", config="{}", **keyed)
    assert "key" in refused(client.unload_model, "tiny")
    assert client.is_model_ready("tiny")
    client.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
