"""All checks in their order."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from service.doctor.finding import Finding, ok, problem
from service.doctor.installation import examine_installation
from service.doctor.machine import examine_machine
from service.doctor.models import examine_models
from service.errors import InvalidConfiguration
from service.settings import load_settings


def examine(arguments: Sequence[str]) -> Iterator[Finding]:
    """Every finding, as soon as it is made.

    Args:
        arguments: The flags that the service would be started with.

    Raises:
        SystemExit: A flag that does not exist.
    """
    try:
        settings = load_settings(arguments)
    except InvalidConfiguration as error:
        yield problem("settings", str(error), "`python -m service --help` has all of them with their bounds")
        return
    chosen = sorted(settings.model_fields_set)
    yield ok("settings", f"set: {', '.join(chosen)}" if chosen else "all have their defaults")
    yield from examine_installation(settings)
    yield from examine_machine(settings)
    yield from examine_models(settings)
