"""The door under pressure: what would be refused anyway is refused before it is parsed.

::

    bytes of one whole, plain POST /predict ──▶ would its batcher refuse it now? ──yes──▶ 503, Retry-After
              └ anything else                              └ no
                       └──────────▶ the usual way ◀────────┘

By the usual way a refusal costs a good part of what an answer of a small network costs. At several times the
capacity, refusals alone would then eat the CPU, and everybody would be late. The decision here is the
batcher's own, only earlier, with a short line, and holds for a millisecond for all who are alike. Nobody
looks here until somebody was refused by the usual way, and for as long as that was not long ago.
"""

from __future__ import annotations

import asyncio
import re
import time
from dataclasses import dataclass
from email.utils import formatdate
from functools import lru_cache
from typing import Final, NamedTuple

from uvicorn.protocols.http.httptools_impl import STATUS_LINE

from service.api.exchange import make_request_id
from service.api.inference import parse_timeout_s
from service.api.predict import Query, parse_query
from service.api.problems import problem_response
from service.app import Application
from service.batcher import Batcher
from service.errors import Overloaded, RequestError

# How long after the last refusal requests are still looked at.
_WATCH_S: Final = 0.25
# How long a refusal holds for requests that are alike: short beside any patience, long beside a look.
_VERDICT_S: Final = 0.001
_MAX_VERDICTS: Final = 64
_MAX_HEADS: Final = 64
_LONGEST_HEAD: Final = 4096
_METHOD: Final = "POST"
_ROUTE: Final = "/predict"
_BEGIN: Final = b"POST /predict"
_VERSION: Final = b" HTTP/1.1"
_HEAD_END: Final = b"\r\n\r\n"
_LENGTH, _PATIENCE, _ID, _HOST = b"content-length", b"x-request-timeout-ms", b"x-request-id", b"host"
# With these a request is more than its head and its body; the usual way knows how to deal with it. A client's
# own id is checked and echoed there, too.
_NOT_PLAIN: Final = (b"transfer-encoding", b"expect", b"connection", b"upgrade", _ID)


def whole_response(error: RequestError, request_id: str, *more: tuple[bytes, bytes]) -> bytes:
    """The answer to a request that never came to the application, as it goes over the wire."""
    status, headers, body = problem_response(error, request_id)
    headers += [
        (b"date", formatdate(usegmt=True).encode()),
        (b"content-length", b"%d" % len(body)),
        (b"x-request-id", request_id.encode()),
        (b"server-timing", b"total;dur=0"),
        *more,
    ]
    lines = b"".join(b"%s: %s\r\n" % header for header in headers)
    return STATUS_LINE[status] + lines + b"\r\n" + body


class _Head(NamedTuple):
    """What is looked at of a plain request's head, and the length of its body."""

    query: Query
    patience_s: float
    key: bytes
    length: int


@dataclass(frozen=True, slots=True)
class _Verdict:
    """A refusal of requests that are alike.

    Attributes:
        until: How long it holds, on the clock of `time.monotonic`.
        error: What it says.
        model_id: The id in ``response``, of the length that all have; to be replaced.
        response: As it goes over the wire.
    """

    until: float
    error: Overloaded
    model_id: bytes
    response: bytes


class Door:
    """Looks at the bytes of whole requests.

    Args:
        application: Behind the door.
    """

    def __init__(self, application: Application) -> None:
        self._application = application
        self._journal = application.journal
        self._inference = application.inference
        self._routing_header = self._inference.limits.routing_header
        names = b"|".join(map(re.escape, (_LENGTH, _PATIENCE, _HOST, *_NOT_PLAIN, self._routing_header)))
        self._header = re.compile(rb"\r\n(" + names + rb"):[ \t]*([^\r\n]*)", re.IGNORECASE)
        self._until = 0.0
        # The heads of one client are mostly alike.
        self._known = lru_cache(_MAX_HEADS)(self._read)
        self._verdicts: dict[tuple[Batcher, float], _Verdict] = {}
        # Who was let through in this turn of the event loop, and has not come to the batcher yet.
        self._inside = 0

    @property
    def is_watched(self) -> bool:
        """Whether requests are to be looked at."""
        return self._journal.is_crowded

    def refusal(self, data: bytes) -> bytes | None:
        """The answer to the request that these bytes are; None: it is not, or it is for others to say.

        Args:
            data: Received on a connection on which nothing else is going on.
        """
        now = time.monotonic()
        if self._journal.overloaded_at + _WATCH_S < now or not self._application.admits_anybody:
            self._journal.is_crowded = False
            self._known.cache_clear()
            self._verdicts.clear()
            return None
        head = self._plain(data)
        if head is None:
            return None
        request_id = make_request_id()
        verdict = self._verdict(head, request_id.encode(), now)
        if verdict is None:
            self._let_in()
            return None
        self._journal.refused_at_door(_ROUTE, _METHOD, verdict.error, request_id, now)
        return verdict.response.replace(verdict.model_id, request_id.encode())

    def _plain(self, data: bytes) -> _Head | None:
        """None: these bytes are not one whole, plain request for the route."""
        end = data.find(_HEAD_END)
        if not 0 < end <= _LONGEST_HEAD:
            return None
        plain = self._known(data[:end])
        is_whole = plain is not None and len(data) == end + len(_HEAD_END) + plain.length
        return plain if is_whole else None

    def _read(self, head: bytes) -> _Head | None:
        line, _, lines = head.partition(b"\r\n")
        if not (line.startswith(_BEGIN) and line.endswith(_VERSION)):
            return None
        query = line[len(_BEGIN) : -len(_VERSION)]
        found: list[tuple[bytes, bytes]] = self._header.findall(b"\r\n" + lines)
        headers = {name.lower(): value for name, value in found}
        length = headers.get(_LENGTH, b"")
        # One of a kind, and no line that another parser would end elsewhere.
        is_plain = (
            len(headers) == len(found)
            and _HOST in headers
            and headers.keys().isdisjoint(_NOT_PLAIN)
            and head.count(b"\n") == head.count(b"\r\n")
        )
        if not (is_plain and length.isdigit() and query[:1] in (b"", b"?")):
            return None
        try:
            patience_s = parse_timeout_s(headers.get(_PATIENCE))
            asked = parse_query(query[1:])
        except RequestError:
            return None
        if patience_s is None:
            patience_s = self._inference.limits.default_deadline_s
        return _Head(asked, patience_s, headers.get(self._routing_header, b""), int(length))

    def _verdict(self, head: _Head, request_id: bytes, now: float) -> _Verdict | None:
        """A refusal for overload; None: there is none, or another one, which is not for here."""
        try:
            key = head.key or request_id
            batcher = self._inference.resolve(head.query.model, head.query.version, key).batcher
        except RequestError:
            return None
        verdict = self._verdicts.get((batcher, head.patience_s))
        if verdict is not None and now < verdict.until:
            return verdict
        try:
            batcher.foresee(1 + self._inside, now + head.patience_s)
        except Overloaded as error:
            verdict = _Verdict(
                now + _VERDICT_S, error, request_id, whole_response(error, request_id.decode())
            )
        except RequestError:
            return None
        else:
            return None
        self._journal.overloaded_at = now
        if len(self._verdicts) >= _MAX_VERDICTS:
            self._verdicts.clear()
        self._verdicts[batcher, head.patience_s] = verdict
        return verdict

    def _let_in(self) -> None:
        """Count who goes on to the batcher; in the next turn of the event loop, they have come to it."""
        if not self._inside:
            asyncio.get_running_loop().call_soon(self._forget)
        self._inside += 1

    def _forget(self) -> None:
        self._inside = 0
