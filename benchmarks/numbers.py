"""Numbers on a benchmark's command line."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TypeVar

N = TypeVar("N", int, float)


def positive(number: type[N]) -> Callable[[str], N]:
    """What reads a number above 0, for argparse."""

    def read(text: str) -> N:
        value = number(text)
        if not 0 < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not above 0")
        return value

    read.__name__ = number.__name__  # argparse names it where the text is no number
    return read
