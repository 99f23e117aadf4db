"""Log lines: text for people, one JSON object a line for collectors. Never image data.

::

    logger.info("answered", extra={"fields": {"request_id": …, "status": 200}})
        text   2026-11-23T06:00:00.123Z INFO service.app.journal answered request_id=… status=200
        json   {"time": …, "level": "info", "logger": …, "message": "answered", "request_id": …, …}
"""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable, Mapping
from datetime import UTC, datetime
from typing import Literal, TextIO

import orjson

LogFormat = Literal["text", "json"]


def configure_logging(level: str, form: LogFormat, stream: TextIO = sys.stderr) -> None:
    """Send every log line of this process to ``stream`` in one form; replaces what was set before."""
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    # Libraries speak up when something is wrong; uvicorn's warnings are of clients that it did not
    # understand, and those have their own line.
    logging.basicConfig(level=logging.WARNING, handlers=[handler], force=True)
    logging.getLogger("uvicorn").setLevel(logging.ERROR)
    logging.getLogger("service").setLevel(level.upper())


def _fields(record: logging.LogRecord) -> Mapping[str, object]:
    fields: Mapping[str, object] = getattr(record, "fields", {})
    return fields


def _timestamp(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


class TextFormatter(logging.Formatter):
    """One line, then the traceback if there is one. What clients say cannot forge a line."""

    def format(self, record: logging.LogRecord) -> str:
        pairs = "".join(f" {name}={_quoted(value)}" for name, value in _fields(record).items())
        message = _printable(record.getMessage())
        line = f"{_timestamp(record)} {record.levelname} {record.name} {message}{pairs}"
        return f"{line}\n{self.formatException(record.exc_info)}" if record.exc_info else line


class JsonFormatter(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        document: dict[str, object] = {
            "time": _timestamp(record),
            "level": record.levelname.lower(),
            "logger": record.name,
            "message": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            document["exception"] = self.formatException(record.exc_info)
        return orjson.dumps(document, default=str).decode()


def _printable(text: str) -> str:
    """With escapes for what begins a line or commands a terminal: a message may quote a client."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else repr(each)[1:-1] for each in text)


def _quoted(value: object) -> str:
    text = str(value)
    return repr(text) if not text.isprintable() or " " in text or not text else text


class Throttle:
    """Lets one line of a kind through a second, and counts the others.

    In an overload thousands of requests a second fail alike; writing each would cost what is missing.
    """

    def __init__(self, interval_s: float = 1.0, clock: Callable[[], float] = time.monotonic) -> None:
        self._interval_s = interval_s
        self._clock = clock
        self._next: dict[str, float] = {}
        self._held_back: dict[str, int] = {}

    def admit(self, kind: str) -> int | None:
        """How many lines of this kind were held back since the last one; None to hold this one back too."""
        now = self._clock()
        if now < self._next.get(kind, now):
            self._held_back[kind] = self._held_back.get(kind, 0) + 1
            return None
        self._next[kind] = now + self._interval_s
        return self._held_back.pop(kind, 0)
