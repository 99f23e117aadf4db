"""Where a benchmark's page goes: to a file, where one is asked for, else to the terminal."""

from __future__ import annotations

import argparse
from pathlib import Path


def add_flag(parser: argparse.ArgumentParser) -> None:
    """``--write FILE``; None where it is not given."""
    parser.add_argument(
        "--write", type=in_a_folder, metavar="FILE", help="where the page goes; printed if not given"
    )


def in_a_folder(text: str) -> Path:
    """A file that can be written at the end of a benchmark, for argparse: its folder is there."""
    path = Path(text)
    if not path.parent.is_dir():
        raise argparse.ArgumentTypeError(f"no folder '{path.parent}'")
    return path


def deliver(text: str, path: Path | None) -> None:
    """Write the page, or print it."""
    if path is None:
        print(text)
    else:
        path.write_text(text, encoding="utf-8")
