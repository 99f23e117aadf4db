"""The pins: name → version, as ``constraints.txt`` has them."""

from __future__ import annotations

from pathlib import Path

from packaging.requirements import InvalidRequirement, Requirement
from packaging.utils import canonicalize_name


class NotPinned(Exception):
    """A line that allows more than one version."""


def read_pins(path: Path) -> dict[str, str]:
    """Every pin, by its normalised name.

    Raises:
        NotPinned: A line is no ``name==version``; names the line.
        OSError: The file cannot be read.
    """
    pins: dict[str, str] = {}
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), start=1):
        text = line.partition("#")[0].strip()
        if text:
            pins.update([_pin(text, f"{path}:{number}")])
    return pins


def _pin(text: str, where: str) -> tuple[str, str]:
    try:
        requirement = Requirement(text)
    except InvalidRequirement as error:
        raise NotPinned(f"{where}: {text!r} is no requirement: {error}") from error
    specifiers = list(requirement.specifier)
    if len(specifiers) != 1 or specifiers[0].operator != "==" or specifiers[0].version.endswith("*"):
        raise NotPinned(f"{where}: {text!r} allows more than one version; pin it with `make constraints`")
    return canonicalize_name(requirement.name), specifiers[0].version
