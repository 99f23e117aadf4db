"""What one check found, and what to do about it."""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum


class Verdict(StrEnum):
    """How bad it is."""

    OK = "ok"
    WARNING = "warning"
    PROBLEM = "problem"


@dataclass(frozen=True, slots=True)
class Finding:
    """The outcome of one check.

    Attributes:
        check: What was looked at.
        verdict: How bad it is.
        found: What there is, in one sentence.
        remedy: What to do; empty where nothing is.
    """

    check: str
    verdict: Verdict
    found: str
    remedy: str = ""


def ok(check: str, found: str) -> Finding:
    """Nothing to do."""
    return Finding(check, Verdict.OK, found)


def warning(check: str, found: str, remedy: str) -> Finding:
    """It will serve all the same."""
    return Finding(check, Verdict.WARNING, found, remedy)


def problem(check: str, found: str, remedy: str) -> Finding:
    """It will not serve."""
    return Finding(check, Verdict.PROBLEM, found, remedy)
