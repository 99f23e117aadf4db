"""Known weaknesses, by an export in OSV's form: a folder or zip file of JSON documents, brought along.

osv.dev publishes one of all Python packages every day. It is as good as it is young, so its age is part of
the answer.

Source: Open Source Vulnerability format 1.6, "affected[].ranges[]", evaluation algorithm.
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterator, Mapping
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, Final, TypeAlias

import orjson
from packaging.utils import canonicalize_name
from packaging.version import InvalidVersion, Version

from deploy.audit.outcome import Outcome, judged, unchecked

CHECK: Final = "advisories"
_ECOSYSTEM: Final = "PyPI"

Advisory: TypeAlias = dict[str, Any]


def examine_advisories(pins: Mapping[str, str], source: Path, now: datetime, max_age: timedelta) -> Outcome:
    """Look every pin up in an export.

    Args:
        pins: Name → version.
        source: A folder or zip file of OSV documents.
        now: The time, with its zone.
        max_age: From when on the export is too old to say that nothing is known.
    """
    try:
        advisories = [each for each in _documents(source) if "withdrawn" not in each]
    except (OSError, zipfile.BadZipFile, orjson.JSONDecodeError) as error:
        return unchecked(CHECK, f"{source} cannot be read: {error}")
    if not any(_affected(each) for each in advisories):
        return unchecked(CHECK, f"{source} has no advisory about a Python package")
    newest = max(datetime.fromisoformat(each["modified"]) for each in advisories)
    findings = [
        f"{name} {version}: {advisory['id']} {advisory.get('summary', '')}".rstrip()
        for advisory in advisories
        for name, version in sorted(pins.items())
        if concerns(advisory, name, version)
    ]
    words = (
        f"{len(pins)} pins against {len(advisories)} advisories in {source}, the newest of {newest:%Y-%m-%d}"
    )
    if not findings and now - newest > max_age:
        return unchecked(CHECK, f"{words}: older than {max_age.days} days; bring a new export")
    return judged(CHECK, words, findings)


def concerns(advisory: Advisory, name: str, version: str) -> bool:
    """Whether an advisory is about this version of this package."""
    return any(
        version in affected.get("versions", ())
        or any(
            _is_within(each["events"], version) for each in affected.get("ranges", ()) if _is_ordered(each)
        )
        for affected in _affected(advisory)
        if canonicalize_name(affected["package"]["name"]) == name
    )


def _affected(advisory: Advisory) -> list[Advisory]:
    """What it says of Python packages."""
    return [
        each
        for each in advisory.get("affected", ())
        if each.get("package", {}).get("ecosystem", "").partition(":")[0] == _ECOSYSTEM
    ]


def _is_ordered(spans: Advisory) -> bool:
    """Whether its events are versions, and not commits."""
    return spans["type"] in ("ECOSYSTEM", "SEMVER")


def _is_within(events: list[dict[str, str]], version: str) -> bool:
    wanted, is_affected = Version(version), False
    for kind, at in sorted(_moments(events), key=lambda moment: moment[1]):
        if kind == "introduced" and at <= wanted:
            is_affected = True
        elif (kind == "fixed" and at <= wanted) or (kind == "last_affected" and at < wanted):
            is_affected = False
    return is_affected


def _moments(events: list[dict[str, str]]) -> Iterator[tuple[str, Version]]:
    for event in events:
        for kind, text in event.items():
            try:
                yield kind, Version(text)
            except InvalidVersion:  # of before PEP 440; such a release is listed in "versions"
                continue


def _documents(source: Path) -> Iterator[Advisory]:
    if source.is_dir():
        for path in sorted(source.rglob("*.json")):
            yield orjson.loads(path.read_bytes())
        return
    with zipfile.ZipFile(source) as archive:
        for name in sorted(archive.namelist()):
            if name.endswith(".json"):
                yield orjson.loads(archive.read(name))
