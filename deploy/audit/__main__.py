"""``python -m deploy.audit [--advisories FILE]``: status 0 if all is well, 1 if not, 2 if nobody knows."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from importlib.metadata import distributions
from pathlib import Path
from typing import TextIO

from deploy.audit.advisories import examine_advisories
from deploy.audit.installation import examine_installation
from deploy.audit.outcome import Outcome, Verdict
from deploy.audit.pins import NotPinned, read_pins
from deploy.audit.programs import examine_database, examine_index

CONSTRAINTS = Path("constraints.txt")
_WORDS = {Verdict.OK: "ok", Verdict.FOUND: "FOUND", Verdict.UNCHECKED: "NOT CHECKED"}


def main(arguments: Sequence[str], out: TextIO = sys.stdout) -> int:
    """See the module."""
    parser = argparse.ArgumentParser(prog="python -m deploy.audit", description=__doc__)
    parser.add_argument("--constraints", type=Path, default=CONSTRAINTS, metavar="FILE")
    parser.add_argument("--advisories", type=Path, metavar="FILE", help="folder or zip file in OSV's form")
    parser.add_argument("--max-age-days", type=int, default=30, help="of the advisories (default: 30)")
    chosen = parser.parse_args(arguments)
    try:
        pins = read_pins(chosen.constraints)
    except (NotPinned, OSError) as error:
        out.write(f"{_WORDS[Verdict.FOUND]:<13}pins          {error}\n")
        return Verdict.FOUND
    max_age = timedelta(days=chosen.max_age_days)
    return report(_outcomes(pins, chosen.constraints, chosen.advisories, max_age), out)


def _outcomes(
    pins: dict[str, str], constraints: Path, advisories: Path | None, max_age: timedelta
) -> Iterator[Outcome]:
    """Each as soon as it is known."""
    yield examine_installation(pins, distributions())
    yield examine_index(constraints)
    if advisories is None:
        yield examine_database(constraints)
    else:
        yield examine_advisories(pins, advisories, datetime.now(UTC), max_age)


def report(outcomes: Iterator[Outcome], out: TextIO) -> int:
    """Write every outcome; the exit status."""
    worst = Verdict.OK
    for outcome in outcomes:
        out.write(f"{_WORDS[outcome.verdict]:<13}{outcome.check:<14}{outcome.words}\n")
        out.writelines(f"{'':<13}▸ {finding}\n" for finding in outcome.findings)
        out.flush()
        worst = max(worst, outcome.verdict, key=lambda verdict: verdict.severity)
    return worst


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
