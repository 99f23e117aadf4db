"""Where a benchmark's page goes: to a file, where one is asked for, else to the terminal."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_flag(parser: argparse.ArgumentParser) -> None:
    """``--write FILE``; None where it is not given."""
    parser.add_argument(
        "--write", type=Path, metavar="FILE", help="where the page goes; printed if not given"
    )


def deliver(text: str, path: Path | None) -> None:
    """Write the page, or print it."""
    if path is None:
        print(text)
    else:
        path.write_text(text, encoding="utf-8")
