"""Findings as lines for people, each written as soon as it is there, or as one JSON document."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import asdict
from typing import Final, TextIO

import orjson

from service.doctor.finding import Finding, Verdict

_CHECK_WIDTH: Final = 14
_INDENT: Final = " " * 9


def report(findings: Iterable[Finding], out: TextIO, *, as_json: bool) -> int:
    """Write all findings; the exit status: 1 if there is a problem."""
    seen = []
    for finding in findings:
        seen.append(finding)
        if not as_json:
            out.write(_lines(finding))
            out.flush()
    counts = Counter(finding.verdict for finding in seen)
    if as_json:
        document = {"problems": counts[Verdict.PROBLEM], "warnings": counts[Verdict.WARNING]}
        out.write(orjson.dumps({**document, "findings": list(map(asdict, seen))}).decode() + "\n")
    else:
        out.write(f"{counts[Verdict.PROBLEM]} problem(s), {counts[Verdict.WARNING]} warning(s)\n")
    return 1 if counts[Verdict.PROBLEM] else 0


def _lines(finding: Finding) -> str:
    line = f"{finding.verdict:<{len(_INDENT)}}{finding.check:<{_CHECK_WIDTH}} {finding.found}\n"
    return f"{line}{_INDENT}{'':<{_CHECK_WIDTH}} ▸ {finding.remedy}\n" if finding.remedy else line
