"""One target under atheris, until its time is over: ``python -m tests.fuzz.search TARGET [OPTION …]``."""

from __future__ import annotations

import logging
import sys

import atheris

with atheris.instrument_imports(include=["service", "PIL"]):
    from tests.fuzz.targets import TARGETS

if __name__ == "__main__":
    logging.disable()
    target = TARGETS[sys.argv[1]]
    atheris.Setup([sys.argv[0], *sys.argv[2:]], target.run)
    atheris.Fuzz()
