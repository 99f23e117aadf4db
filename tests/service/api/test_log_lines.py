"""What the log says of requests: a line a failure, a line a request at debug, nothing of any picture."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from typing import Any

import pytest

from service.logs import configure_logging
from tests.service.api.conftest import Start

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"
HEADERS = {
    "Content-Type": "application/octet-stream",
    "X-Request-ID": "mine",
    "traceparent": f"00-{TRACE_ID}-00f067aa0ba902b7-01",
}
# What stands for a picture's content; it must be nowhere in the log.
SECRET = b"a face that nobody else should see"


class Log(io.StringIO):
    """Everything that is written, as JSON."""

    @property
    def lines(self) -> list[dict[str, Any]]:
        """One document a line."""
        return [json.loads(line) for line in self.getvalue().splitlines()]

    def said(self, message: str) -> list[dict[str, Any]]:
        """The lines of this beginning."""
        return [line for line in self.lines if line["message"].startswith(message)]


@pytest.fixture
def log() -> Iterator[Log]:
    root, ours = logging.getLogger(), logging.getLogger("service")
    handlers, levels = root.handlers[:], (root.level, ours.level)
    stream = Log()
    configure_logging("debug", "json", stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(levels[0])
    ours.setLevel(levels[1])


async def test_every_request_is_a_line_with_its_ids_and_its_times(
    start: Start, image: bytes, log: Log
) -> None:
    async with start() as running:
        await running.client.post("/predict", content=image, headers=HEADERS)
        await running.client.get("/readyz")
    predicted, probed = log.said("answered")
    assert predicted["request_id"] == "mine"
    assert predicted["trace_id"] == TRACE_ID
    assert predicted["status"] == 200
    assert {"decode_s", "queue_s", "inference_s", "seconds"} <= set(predicted)
    assert predicted["seconds"] >= predicted["queue_s"] + predicted["inference_s"]
    assert probed["route"] == "/readyz"
    assert "trace_id" not in probed


@pytest.mark.parametrize("head", [b"", b"\x89PNG\r\n\x1a\n", b"\xff\xd8\xff\xe0"])
async def test_a_refusal_is_a_line_with_its_reason_and_no_content(
    head: bytes, start: Start, log: Log
) -> None:
    async with start() as running:
        await running.client.post("/predict", content=head + SECRET, headers=HEADERS)
    (line,) = log.said("refused")
    assert (line["level"], line["reason"], line["status"]) == ("info", "undecodable_image", 422)
    assert (line["request_id"], line["trace_id"]) == ("mine", TRACE_ID)
    assert SECRET.decode() not in log.getvalue()


async def test_images_refused_among_others_are_a_line_by_reason(start: Start, image: bytes, log: Log) -> None:
    files = [("a", ("a.png", content, "image/png")) for content in (image, SECRET, image, SECRET)]
    async with start() as running:
        answer = await running.client.post("/predict", files=files, headers={"X-Request-ID": "mine"})
    assert answer.status_code == 200
    (line,) = log.said("images refused")
    assert (line["reason"], line["images"], line["request_id"]) == ("undecodable_image", 2, "mine")
    assert SECRET.decode() not in log.getvalue()


async def test_a_failure_is_a_line_with_its_cause(start: Start, image: bytes, log: Log) -> None:
    async with start() as running:
        running.gate.error = RuntimeError("poisoned")
        await running.client.post("/predict", content=image, headers=HEADERS)
    (line,) = log.said("refused")
    assert (line["level"], line["reason"]) == ("warning", "inference_failed")
    assert "poisoned" in line["cause"]
    assert (line["request_id"], line["trace_id"]) == ("mine", TRACE_ID)


async def test_an_exception_nobody_thought_of_is_a_line_with_its_traceback(
    start: Start, image: bytes, log: Log, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(*_: object) -> None:
        raise KeyError("a mistake of ours")

    monkeypatch.setattr("service.api.predict.prediction", fail)
    async with start() as running:
        answer = await running.client.post("/predict", content=image, headers=HEADERS)
    assert answer.status_code == 500
    assert "mistake" not in answer.text
    (line,) = log.said("request failed")
    assert (line["level"], line["reason"], line["request_id"]) == ("error", "inference_failed", "mine")
    assert "a mistake of ours" in line["exception"]
