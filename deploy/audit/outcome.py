"""What one check came to."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Verdict(IntEnum):
    """How a check ended; the worst is the exit status."""

    OK = 0
    UNCHECKED = 2
    FOUND = 1

    @property
    def severity(self) -> int:
        """What was found weighs more than what nobody could look at."""
        return (Verdict.OK, Verdict.UNCHECKED, Verdict.FOUND).index(self)


@dataclass(frozen=True)
class Outcome:
    """The end of one check.

    Attributes:
        check: What was looked at.
        verdict: How it ended.
        words: What was looked at and what not, in one sentence.
        findings: One line each.
    """

    check: str
    verdict: Verdict
    words: str
    findings: tuple[str, ...] = ()


def judged(check: str, words: str, findings: list[str]) -> Outcome:
    """A check that was made."""
    return Outcome(check, Verdict.FOUND if findings else Verdict.OK, words, tuple(findings))


def unchecked(check: str, why: str) -> Outcome:
    """A check that could not be made, and what would let it."""
    return Outcome(check, Verdict.UNCHECKED, why)
