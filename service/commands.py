"""Commands beside serving: documents written by the code they describe, keys, tuning, a check-up."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import Final, TypeAlias

import orjson

from service.access import Scope, make_key
from service.app import Application
from service.errors import InvalidConfiguration
from service.metrics import metrics_reference
from service.settings import Settings, settings_reference

_JSON_FLAG: Final = "--json"
# Its arguments → what it prints, or the exit status of one that has printed for itself.
Command: TypeAlias = Callable[[Sequence[str]], str | int]


def openapi_document() -> str:
    """``docs/openapi.json``: the whole HTTP interface."""
    document = Application(Settings.model_construct()).framework.openapi()
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n"


def new_key(arguments: Sequence[str]) -> str:
    """A new API key and its line for the file of keys.

    Args:
        arguments: A name, and the key's scopes if it is for more than `predict`.

    Raises:
        InvalidConfiguration: No name, or a scope that there is not.
    """
    if not arguments:
        raise InvalidConfiguration("usage: python -m service key NAME [SCOPE …]")
    name, *scopes = arguments
    unknown = sorted(set(scopes) - set(Scope))
    if unknown:
        raise InvalidConfiguration(f"no scope '{unknown[0]}'; there are {', '.join(Scope)}")
    secret, line = make_key(name, map(Scope, scopes or [Scope.PREDICT]))
    return f"# the key, shown this once: {secret}\n{line}\n"


def tune(arguments: Sequence[str]) -> str:
    """Which settings hold a latency objective at the highest throughput; see `service.tuning`."""
    from service import tuning  # nothing of it is loaded into a process that serves

    return tuning.tune(arguments)


def check_up(arguments: Sequence[str]) -> int:
    """Look for what would keep the service from working here; ``--json`` for programs. See `service.doctor`.

    Args:
        arguments: The flags that the service would be started with.

    Returns:
        The exit status: 1 if there is a problem.
    """
    from service.doctor import examine, report  # serving does not need it

    flags = [argument for argument in arguments if argument != _JSON_FLAG]
    return report(examine(flags), sys.stdout, as_json=_JSON_FLAG in arguments)


COMMANDS: Final[Mapping[str, Command]] = MappingProxyType(
    {
        "openapi": lambda _: openapi_document(),
        "settings": lambda _: settings_reference(),
        "metrics": lambda _: metrics_reference(),
        "key": new_key,
        "tune": tune,
        "doctor": check_up,
    }
)
