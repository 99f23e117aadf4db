"""Log lines: readable as text, whole as JSON, never forged, never a flood."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator

import pytest

from service.logs import LogFormat, Throttle, configure_logging


@pytest.fixture(autouse=True)
def restored_logging() -> Iterator[None]:
    root, levels = (
        logging.getLogger(),
        {name: logging.getLogger(name).level for name in ("service", "uvicorn")},
    )
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    for name, before in levels.items():
        logging.getLogger(name).setLevel(before)


def written(form: LogFormat, message: str, fields: dict[str, object]) -> str:
    stream = io.StringIO()
    configure_logging("info", form, stream)
    logging.getLogger("service.test").info(message, extra={"fields": fields})
    return stream.getvalue()


def test_text_is_one_line_with_its_fields() -> None:
    line = written("text", "hello", {"status": 200, "detail": "two words"})
    assert line.endswith("INFO service.test hello status=200 detail='two words'\n")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_value_cannot_forge_a_line(form: LogFormat) -> None:
    line = written(form, "a\n2026 INFO forged\r\x1b[2J\x85 \u2028é", {"id": "x\nforged\x1b[2J"})
    assert line.count("\n") == 1
    assert "\x1b" not in line
    assert len(line.splitlines()) == 1 or form == "json"
    assert "é" in line


def test_json_is_one_object_a_line() -> None:
    document = json.loads(written("json", "hello", {"status": 200, "reason": "overloaded"}))
    assert document["level"] == "info"
    assert document["message"] == "hello"
    assert document["status"] == 200
    assert document["time"].endswith("Z")


@pytest.mark.parametrize("form", ["text", "json"])
def test_a_traceback_comes_with_its_line(form: LogFormat) -> None:
    stream = io.StringIO()
    configure_logging("info", form, stream)
    try:
        raise ValueError("the cause")
    except ValueError:
        logging.getLogger("service.test").exception("failed")
    assert "ValueError: the cause" in stream.getvalue()


def test_the_level_is_for_the_service_and_not_for_its_libraries() -> None:
    stream = io.StringIO()
    configure_logging("debug", "text", stream)
    logging.getLogger("service.test").debug("ours")
    logging.getLogger("PIL").debug("theirs")
    logging.getLogger("uvicorn.error").warning("theirs too")
    assert stream.getvalue().count("\n") == 1


def test_throttle_lets_one_a_second_through_and_counts_the_rest() -> None:
    now = 0.0
    throttle = Throttle(1.0, lambda: now)
    assert throttle.admit("a") == 0
    assert [throttle.admit("a") for _ in range(3)] == [None] * 3
    assert throttle.admit("b") == 0
    now = 1.0
    assert throttle.admit("a") == 3
    now = 2.0
    assert throttle.admit("a") == 0
