"""Numbers on a benchmark's command line."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from typing import TypeVar

N = TypeVar("N", int, float)


def positive(number: type[N], above: int = 0) -> Callable[[str], N]:
    """What reads a number above 0, or above another one, for argparse."""

    def read(text: str) -> N:
        value = number(text)
        if not above < value < math.inf:
            raise argparse.ArgumentTypeError(f"{text} is not above {above}")
        return value

    read.__name__ = number.__name__  # argparse names it where the text is no number
    return read
