"""The caller's place in its trace.

Source: W3C Trace Context, level 2, section 3.2 (the header ``traceparent``).
"""

from __future__ import annotations

import re
from typing import Final, NamedTuple

# A later version may add fields behind these; version ff is invalid.
_TRACEPARENT = re.compile(
    rb"(?!ff)(?P<version>[0-9a-f]{2})-(?P<trace_id>[0-9a-f]{32})-(?P<parent_id>[0-9a-f]{16})"
    rb"-(?P<flags>[0-9a-f]{2})(?P<more>-.*)?"
)
_SAMPLED: Final = 1


class TraceContext(NamedTuple):
    """Who called.

    Attributes:
        trace_id: 32 hexadecimal digits, not all 0.
        parent_id: Of the caller's span; 16 hexadecimal digits, not all 0.
        is_sampled: Whether the caller records its part.
    """

    trace_id: str
    parent_id: str
    is_sampled: bool


def parse_traceparent(header: bytes | None) -> TraceContext | None:
    """What a ``traceparent`` says; None where there is none, or one that the standard says to ignore."""
    match = None if header is None else _TRACEPARENT.fullmatch(header)
    if match is None or (match["version"] == b"00" and match["more"]):
        return None
    trace_id, parent_id = match["trace_id"].decode(), match["parent_id"].decode()
    if not (int(trace_id, 16) and int(parent_id, 16)):
        return None
    return TraceContext(trace_id, parent_id, bool(int(match["flags"], 16) & _SAMPLED))
