"""How many requests a run of endurance sends: ``make endurance REQUESTS=1000000``."""

from __future__ import annotations

import os
import re

import pytest


def requests() -> int:
    """The number in ``REQUESTS``.

    Raises:
        CollectError: It is none; pytest shows the message alone.
    """
    text = os.environ.get("REQUESTS", "100000")
    if not re.fullmatch("[1-9][0-9]*", text):
        raise pytest.Collector.CollectError(f"REQUESTS='{text}' is not a whole number above 0")
    return int(text)
