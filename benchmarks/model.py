"""The model that a benchmark measures, and the pictures that it sends, as the command line names them."""

from __future__ import annotations

import argparse
from pathlib import Path

from service.settings import Settings
from service.tuning import subject
from service.tuning.subject import Subject


def add_flags(parser: argparse.ArgumentParser) -> None:
    """``--repository``, ``--model`` and ``--pictures``."""
    parser.add_argument(
        "--repository", type=Path, default=Path("models"), help="folder of models (default: %(default)s)"
    )
    parser.add_argument("--model", default="", help="its name (default: the only one, or digits)")
    parser.add_argument("--pictures", type=Path, help="folder of pictures (default: the model's self-test)")


def find(options: argparse.Namespace) -> tuple[Subject, list[bytes]]:
    """The model, and the pictures that are sent to it.

    Raises:
        InvalidConfiguration: No such model, several and none is named, or no picture.
        ModelRejected: A file of it is none.
    """
    settings = Settings(repository=options.repository, models=(options.model,) if options.model else None)
    found = subject.find(settings, 0)
    return found, found.images(options.pictures)
