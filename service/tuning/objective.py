"""What a tuned service must hold, as ``p99<50ms``, or several of these separated by commas."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

from service.errors import InvalidConfiguration
from service.tuning.load import percentile

_TERM: Final = re.compile(
    r"p(?P<percentile>[0-9]{1,2}(?:\.[0-9]+)?)\s*<\s*(?P<bound>[0-9]*\.?[0-9]+)\s*(?P<unit>ms|s)"
)


@dataclass(frozen=True, slots=True)
class Bound:
    """One percentile of the latency stays below a bound."""

    percentile: float
    bound_ms: float

    def __str__(self) -> str:
        return f"p{self.percentile:g}<{self.bound_ms:g}ms"


@dataclass(frozen=True, slots=True)
class Objective:
    """All bounds together. Nothing may fail, either."""

    bounds: tuple[Bound, ...]

    def __str__(self) -> str:
        return ", ".join(map(str, self.bounds))

    def excess(self, latencies_ms: Sequence[float]) -> float:
        """How far off it is: at most 1 where it is held, 2 for twice the bound; NaN of nothing.

        Args:
            latencies_ms: Ascending.
        """
        return max(percentile(latencies_ms, bound.percentile) / bound.bound_ms for bound in self.bounds)

    @property
    def percentiles(self) -> tuple[float, ...]:
        """Those that are bounded; the first one is shown in the picture."""
        return tuple(bound.percentile for bound in self.bounds)


def parse_objective(text: str) -> Objective:
    """The objective in a text.

    Raises:
        InvalidConfiguration: It is none; says what would be one.
    """
    return Objective(tuple(_parse(term.strip()) for term in text.split(",")))


def _parse(term: str) -> Bound:
    match = _TERM.fullmatch(term)
    bound = float(match["bound"]) * (1e3 if match["unit"] == "s" else 1.0) if match else 0.0
    if match is None or not bound or not float(match["percentile"]):
        raise InvalidConfiguration(f"'{term}' is no objective; write e.g. p99<50ms, or p50<5ms, p99.9<0.1s")
    return Bound(float(match["percentile"]), bound)
