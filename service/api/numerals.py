"""Whole numbers as clients write them: in headers and in the query."""

from __future__ import annotations

from typing import Final

# Nothing that is counted here has more. `int` takes a thousand digits, and raises at some thousands.
_MAX_DIGITS: Final = 18


def whole_number(given: bytes, least: int, most: int) -> int | None:
    """The number, in decimal digits alone; None where it is none, or out of bounds."""
    if not given.isdigit() or len(given) > _MAX_DIGITS:
        return None
    number = int(given)
    return number if least <= number <= most else None
