"""What pip says of every pin, from its index, and pip-audit, from a public database."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Final

import orjson

from deploy.audit.outcome import Outcome, judged, unchecked

INDEX: Final = "index"
DATABASE: Final = "advisories"
TIMEOUT_S: Final = 300.0

PIP: Final = (sys.executable, "-m", "pip")
PIP_AUDIT: Final = (sys.executable, "-m", "pip_audit")


def examine_index(constraints: Path, program: Sequence[str] = PIP) -> Outcome:
    """Have pip choose every pin from its index without installing it: withdrawn releases are marked there."""
    options = ("--dry-run", "--ignore-installed", "--no-deps", "--quiet", "--report", "-")
    said = _run((*program, "install", *options, "--requirement", str(constraints)))
    if isinstance(said, str):
        return unchecked(INDEX, f"pip could not choose the pins from its index: {said}")
    chosen = said["install"]
    withdrawn = [each["metadata"] for each in chosen if each.get("is_yanked")]
    return judged(
        INDEX,
        f"{len(chosen)} pins are offered by pip's index",
        [f"{each['name']} {each['version']} was withdrawn by its makers" for each in withdrawn],
    )


def examine_database(constraints: Path, program: Sequence[str] = PIP_AUDIT) -> Outcome:
    """Have pip-audit ask a public database about every pin."""
    options = ("--no-deps", "--disable-pip", "--strict", "--progress-spinner", "off", "--format", "json")
    said = _run((*program, *options, "--requirement", str(constraints)))
    if isinstance(said, str):
        return unchecked(
            DATABASE,
            f"pip-audit got no answer ({said}); without a network bring an export of osv.dev for PyPI: "
            "make audit ADVISORIES=all.zip",
        )
    findings = [
        f"{each['name']} {each['version']}: {weakness['id']}, mended in "
        f"{', '.join(weakness['fix_versions']) or 'no release'}"
        for each in said["dependencies"]
        for weakness in each["vulns"]
    ]
    return judged(DATABASE, f"{len(said['dependencies'])} pins are asked about by pip-audit", findings)


def _run(command: Sequence[str]) -> dict[str, Any] | str:
    """The JSON document that a program writes; else its last words."""
    try:
        done = subprocess.run(  # noqa: S603 - our own interpreter
            command, capture_output=True, text=True, timeout=TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        return f"nothing was said for {TIMEOUT_S:g} s"
    try:
        document: dict[str, Any] = orjson.loads(done.stdout)
    except orjson.JSONDecodeError:
        lines = done.stderr.strip().splitlines()
        return lines[-1] if lines else f"status {done.returncode}"
    return document
