"""The examples of the README and of the page on protocols, typed as they stand there."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest

from tests.e2e.road import Served

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.timeout(900),  # the first test may wait for the training
    pytest.mark.skipif(shutil.which("curl") is None, reason="the README's examples use curl"),
]

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text()


def _examples(text: str) -> list[str]:
    return [
        block
        for block in re.findall(r"```sh\n(.*?)```", text, re.DOTALL)
        if "http://127.0.0.1:8000/" in block
    ]


CURLS = [block for block in _examples(README) if block.startswith("curl")]
MORE = [
    *(block for block in _examples(README) if block not in CURLS),
    *_examples((ROOT / "docs" / "protocol.md").read_text()),
]
PROTOCOLS = [block for block in CURLS if "/models/" in block]
EXAMPLES = [block for block in CURLS if block not in PROTOCOLS]


def _answer(example: str, served: Served) -> Any:
    command = example.replace("http://127.0.0.1:8000", str(served.client.base_url).rstrip("/"))
    done = subprocess.run(  # noqa: S602  # a shell, as the reader has one
        command, shell=True, cwd=ROOT, capture_output=True, text=True, timeout=30, check=True
    )
    return json.loads(done.stdout)


def _shape(value: Any) -> Any:
    """The keys and types of a document."""
    if isinstance(value, dict):
        return {key: _shape(entry) for key, entry in value.items()}
    return [_shape(entry) for entry in value] if isinstance(value, list) else type(value)


def test_the_first_example_answers_as_it_says(served: Served) -> None:
    (printed,) = re.findall(r"```json\n(.*?)```", README, re.DOTALL)
    promised, answer = json.loads(printed), _answer(EXAMPLES[0], served)
    assert _shape(answer) == _shape(promised)
    assert [prediction["label"] for prediction in answer["predictions"]] == ["7"]
    for row, promised_row in zip(answer["predictions"], promised["predictions"], strict=True):
        assert row["probability"] == pytest.approx(promised_row["probability"], abs=0.02)


@pytest.mark.parametrize("example", EXAMPLES, ids=range(len(EXAMPLES)))
def test_every_example_names_the_seven(example: str, served: Served) -> None:
    predictions = _answer(example, served)["predictions"]
    assert {prediction["label"] for prediction in predictions} == {"7"}


def _probabilities(answer: Any) -> list[float]:
    """Of the only instance, in either protocol."""
    if "predictions" in answer:
        (only,) = answer["predictions"]
        return list(only)
    (output,) = [output for output in answer["outputs"] if output["name"] == "probabilities"]
    return list(output["data"])


@pytest.mark.parametrize("example", PROTOCOLS, ids=range(len(PROTOCOLS)))
def test_every_protocol_finds_the_seven(example: str, served: Served) -> None:
    probabilities = _probabilities(_answer(example, served))
    assert probabilities.index(max(probabilities)) == 7


@pytest.mark.parametrize("example", MORE, ids=range(len(MORE)))
def test_every_other_request_is_answered(example: str, served: Served) -> None:
    assert "error" not in _answer(example, served)
