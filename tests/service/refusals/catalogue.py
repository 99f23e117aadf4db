"""``docs/refusals.md``, from what the tests send: ``python -m tests.service.refusals.catalogue``."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import NamedTuple

from tests.service.images.damage import damaged
from tests.service.refusals import access, bodies, http_requests, tensors
from tests.service.refusals.attempt import Attempt


class Area(NamedTuple):
    """Requests of a kind, and whether they go to the service that wants keys."""

    title: str
    attempts: Callable[[], Iterator[Attempt]]
    is_keyed: bool = False


AREAS = (
    Area("Bytes on the connection", http_requests.wire),
    Area("Odd, and taken all the same", http_requests.taken),
    Area("Paths and methods", http_requests.routes),
    Area("Queries and headers of `POST /predict`", http_requests.parameters),
    Area("Forms", bodies.forms),
    Area("JSON", bodies.documents),
    Area("Open Inference Protocol: what is declared", tensors.declarations),
    Area("Open Inference Protocol: what is sent", tensors.contents),
    Area("TensorFlow Serving's rows", tensors.rows),
    Area("Keys", access.keys, is_keyed=True),
    Area("An operator's mistakes", access.operations, is_keyed=True),
)

_INTRODUCTION = """\
# What is refused

{count} requests that no good client would send, each on a connection of its own to the real process, and
the answer that each must get. Every refusal is a problem document with its reason; none of them is a 500,
none leaves a line of a crash in the log, and the next good picture is served. {pictures} damaged pictures
and their refusals are in [images](images.md#tried); what comes too slowly, or ends too early, is in
[reliability](reliability.md).

The service allows 4,096 bytes of headers, 65,536 of a body and 4 images a request here, and has one model.

Made by `python -m tests.service.refusals.catalogue` from the requests that `tests/service/refusals/` sends.
"""


def document() -> str:
    """The whole of it."""
    count = sum(len(list(area.attempts())) for area in AREAS)
    lines = [_INTRODUCTION.format(count=count, pictures=len(damaged()))]
    for area in AREAS:
        lines += [f"## {area.title}", "", "| what is sent | answer |", "| --- | --- |"]
        lines += [f"| {_cell(attempt.name)} | {_answer(attempt)} |" for attempt in area.attempts()]
        lines.append("")
    return "\n".join(lines)


def _cell(text: str) -> str:
    return text.replace("|", "\\|").replace("\xff", "\\xff")


def _answer(attempt: Attempt) -> str:
    status, reason = attempt.stated
    return str(status) if reason is None else f"{status} `{reason}`"


if __name__ == "__main__":
    sys.stdout.write(document())
