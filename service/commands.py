"""Commands beside serving: documents written by the code they describe; keys, tuning, a check-up, routing.

Each loads what it needs when it runs: a process that serves would carry it all along.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

import orjson

from service.errors import InvalidConfiguration
from service.settings import Settings, load_settings, settings_reference

if TYPE_CHECKING:
    from service.repository import Workbench

_JSON_FLAG: Final = "--json"
# Its arguments → what it prints, or the exit status of one that has printed for itself.
Run: TypeAlias = Callable[[Sequence[str]], str | int]


class Command(NamedTuple):
    """What is run by its name, and what ``--help`` says of it."""

    summary: str
    run: Run


_NONE: Final = "none"


def openapi_document() -> str:
    """``docs/openapi.json``: the whole HTTP interface."""
    from service.app import Application

    document = Application(Settings.model_construct()).framework.openapi()
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n"


def metrics_document() -> str:
    """``docs/metrics.md``: every metric family."""
    from service.metrics import metrics_reference

    return metrics_reference()


def new_key(arguments: Sequence[str]) -> str:
    """A new API key and its line for the file of keys.

    Args:
        arguments: A name, and the key's scopes if it is for more than `predict`.

    Raises:
        InvalidConfiguration: No name, or a scope that there is not.
    """
    from service.access import Scope, make_key

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
    from service import tuning

    return tuning.tune(arguments)


def check_up(arguments: Sequence[str]) -> int:
    """Look for what would keep the service from working here; ``--json`` for programs. See `service.doctor`.

    Args:
        arguments: The flags that the service would be started with.

    Returns:
        The exit status: 1 if there is a problem.
    """
    from service.doctor import examine, report

    flags = [argument for argument in arguments if argument != _JSON_FLAG]
    return report(examine(flags), sys.stdout, as_json=_JSON_FLAG in arguments)


def rollback(arguments: Sequence[str]) -> str:
    """Have an earlier version of a model serve, and nothing newer until this is taken back.

    Args:
        arguments: A name, ``--to VERSION`` (or ``latest``), and the service's own flags.

    Raises:
        InvalidConfiguration: No such model or version.
        ModelRejected: This version would not serve.
        Forbidden: The repository cannot be written.
    """
    parser = _operating("rollback", "Serve an earlier version of a model, and nothing newer than it.")
    parser.add_argument("--to", metavar="VERSION", help="which; without it the next good one below; `latest`")
    given, flags = parser.parse_known_args(arguments)
    return _workbench(given.name, flags, parser).roll_back(given.to) + "\n"


def route(arguments: Sequence[str]) -> str:
    """Say which versions of a model answer what: aliases, a canary, a shadow.

    Args:
        arguments: A name, what is to be changed, and the service's own flags.

    Raises:
        InvalidConfiguration: No such model or version, or a plan that is none.
        ModelRejected: A version would not serve.
        Forbidden: The repository cannot be written.
    """
    from service.repository import PLAN_NAME, parse_plan

    parser = _operating("route", "Say which versions of a model answer what; `none` takes it back.")
    parser.add_argument("--alias", metavar="ALIAS=VERSION", action="append", default=[], type=_pair)
    parser.add_argument(
        "--canary", metavar="VERSION=WEIGHT", type=_pair, help="a share of the traffic, 0 to 1"
    )
    parser.add_argument("--shadow", metavar="VERSION", help="who gets a copy of the traffic")
    given, flags = parser.parse_known_args(arguments)
    workbench = _workbench(given.name, flags, parser)
    plan = workbench.plan.model_dump()
    plan["aliases"] |= dict(given.alias)
    plan["aliases"] = {alias: version for alias, version in plan["aliases"].items() if version != _NONE}
    if given.canary is not None:
        version, weight = given.canary
        plan["canary"] = None if version == _NONE else {"version": version, "weight": _share(weight)}
    if given.shadow is not None:
        plan["shadow"] = None if given.shadow == _NONE else given.shadow
    return workbench.write(parse_plan(orjson.dumps(plan), PLAN_NAME)) + "\n"


def _operating(command: str, description: str) -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog=f"python -m service {command}", description=description, allow_abbrev=False
    )
    parser.add_argument("name", help="of the model")
    return parser


def _pair(text: str) -> tuple[str, str]:
    first, _, second = text.partition("=")
    return first, second


def _share(text: str) -> float | str:
    """The number; a text that is none stays one, and the plan says what is wrong with it."""
    try:
        return float(text)
    except ValueError:
        return text


def _workbench(name: str, flags: Sequence[str], parser: argparse.ArgumentParser) -> Workbench:
    from service.app.wiring import repository_options
    from service.repository import Workbench

    return Workbench(repository_options(load_settings(flags, beside=parser)), name)


COMMANDS: Final[Mapping[str, Command]] = MappingProxyType(
    {
        "doctor": Command("look for what would keep the service from working here", check_up),
        "tune": Command("find the settings that hold a latency objective at the highest throughput", tune),
        "key": Command("make an API key and its line for the file of keys", new_key),
        "rollback": Command("serve an earlier version of a model, and nothing newer than it", rollback),
        "route": Command("say which versions of a model answer what: aliases, a canary, a shadow", route),
        "openapi": Command("print docs/openapi.json", lambda _: openapi_document()),
        "settings": Command("print docs/settings.md", lambda _: settings_reference()),
        "metrics": Command("print docs/metrics.md", lambda _: metrics_document()),
    }
)


def commands_help() -> str:
    """What ``python -m service --help`` says of the commands."""
    width = max(map(len, COMMANDS))
    lines = (f"  {name:{width}}  {command.summary}" for name, command in COMMANDS.items())
    return "\n".join(["", "Commands beside serving, as `python -m service COMMAND`:", *lines])
