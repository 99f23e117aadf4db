"""What needs a key beside the hot routes. Probes, page and documents are for everybody."""

from __future__ import annotations

from typing import Final

from service.access import Scope

_READING: Final = frozenset({"GET", "HEAD", "OPTIONS"})
# What is not only read below these changes what is served.
_ADMINISTRATION: Final = ("/models/", "/v2/repository/models/")


def scope_of(method: str, path: str) -> Scope | None:
    """What a key must be good for; None: no key is needed."""
    if path == "/metrics":
        return Scope.METRICS
    is_change = method not in _READING and path.startswith(_ADMINISTRATION)
    return Scope.ADMIN if is_change else None
