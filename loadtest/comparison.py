"""Two saved runs beside each other: what differs, and by how much at least.

::

    run A, run B ─▶ seconds 0, 1, 2, … of each ─▶ drawn anew 2,000 times ─▶ figure(B) − figure(A) each time
                                                                             └ middle 95 % ─▶ the interval

Seconds are drawn as a whole, because requests that were in the service together are not independent. Where
both runs had the same arrivals, the same seconds are drawn of both: what the schedule does to one it does
to the other, and the interval gets narrower.

The interval knows of the variation within the two runs and of nothing else: not of what the machine did
between them. Interleave several pairs where that matters.

Source: Künsch, The jackknife and the bootstrap for general stationary observations, 1989 (blocks).
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from loadtest.samples import InvalidRun, Samples, read

MIN_SECONDS: Final = 8  # fewer blocks say nothing of their own variation
_DRAWS: Final = 2000
_LEVEL: Final = 0.95
_SEED: Final = 0

# Weights [D, S] of a run's seconds → the figure [D] for each drawing.
Figure: TypeAlias = Callable[["Run", NDArray[np.float64]], NDArray[np.float64]]


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """A saved run, cut into seconds.

    Attributes:
        folder: Where it lies.
        samples: Its requests.
        second: int64 [N], the second of each request.
        seconds: How many there are; a last one that is not whole is left out.
    """

    folder: Path
    samples: Samples
    second: NDArray[np.int64]
    seconds: int

    @classmethod
    def load(cls, folder: Path) -> Run:
        """A run from its folder.

        Raises:
            InvalidRun: None is there, its generator lagged, or it is too short.
        """
        samples = read(folder)
        if not _is_valid(folder):
            raise InvalidRun(f"{folder}: the generator lagged: this run says nothing about the service")
        # The last second counts where it has its share of requests.
        seconds = int(np.floor(samples.at_s.max() + 0.05))
        if seconds < MIN_SECONDS:
            raise InvalidRun(f"{folder}: {seconds} s are too short to compare; {MIN_SECONDS} are needed")
        return cls(folder, samples, samples.at_s.astype(np.int64), seconds)

    def sums(self, values: NDArray[np.number] | NDArray[np.bool_]) -> NDArray[np.float64]:
        """float64 [S]: what the requests' values [N] add up to in each second."""
        added = np.bincount(self.second, values.astype(np.float64), minlength=self.seconds)
        return added[: self.seconds].astype(np.float64)


@dataclass(frozen=True, slots=True)
class Difference:
    """One figure of two runs.

    Attributes:
        unit: Of all numbers.
        a, b: The figure of each.
        low, high: Between these lies b − a, with 95 % confidence.
        is_better_high: Whether more of it is better.
    """

    name: str
    unit: str
    a: float
    b: float
    low: float
    high: float
    is_better_high: bool

    @property
    def is_shown(self) -> bool:
        """Whether the runs differ in it: the interval leaves 0 out."""
        return self.low > 0 or self.high < 0

    @property
    def is_worse(self) -> bool:
        """Whether B is shown to be worse."""
        return self.high < 0 if self.is_better_high else self.low > 0


@dataclass(frozen=True, slots=True)
class Comparison:
    """Two runs.

    Attributes:
        is_paired: Whether both had the same arrivals.
    """

    a: Run
    b: Run
    is_paired: bool
    differences: tuple[Difference, ...]

    @property
    def exit_code(self) -> int:
        """1 where B is shown to be worse in something, else 0."""
        return int(any(difference.is_worse for difference in self.differences))


def compare(folder_a: Path, folder_b: Path) -> Comparison:
    """What differs between two saved runs.

    Raises:
        InvalidRun: One of them cannot be compared.
    """
    a, b = Run.load(folder_a), Run.load(folder_b)
    is_paired = np.array_equal(a.samples.at_s, b.samples.at_s)
    random = np.random.default_rng(_SEED)
    weights_a = _draws(random, a.seconds)
    weights_b = weights_a if is_paired else _draws(random, b.seconds)
    differences = tuple(
        _difference(name, unit, is_better_high, figure, (a, weights_a), (b, weights_b))
        for name, (unit, is_better_high, figure) in _FIGURES.items()
    )
    return Comparison(a, b, is_paired, differences)


def as_text(comparison: Comparison) -> str:
    """The table that is printed."""
    rows: list[tuple[str, ...]] = [("", "A", "B", "B − A", "95 % of it between", "")]
    rows += [_row(difference) for difference in comparison.differences]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.rjust(width) for cell, width in zip(row, widths, strict=True)) for row in rows]
    kind = "the same arrivals, second by second" if comparison.is_paired else "different arrivals"
    heads = [f"A  {comparison.a.folder}", f"B  {comparison.b.folder}", f"{kind}; {_DRAWS:,} drawings", ""]
    return "\n".join([*heads, *lines, "", _verdict(comparison.differences)])


def _is_valid(folder: Path) -> bool:
    try:
        document: Mapping[str, object] = json.loads((folder / "result.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InvalidRun(f"{folder / 'result.json'}: no saved run: {error}") from error
    return document.get("valid") is True


def _draws(random: np.random.Generator, seconds: int) -> NDArray[np.float64]:
    """float64 [D + 1, S]: how often each second was drawn; first the run as it was."""
    drawn = random.multinomial(seconds, np.full(seconds, 1 / seconds), _DRAWS)
    return np.concatenate([np.ones((1, seconds)), drawn])


def _difference(
    name: str,
    unit: str,
    is_better_high: bool,
    figure: Figure,
    first: tuple[Run, NDArray[np.float64]],
    second: tuple[Run, NDArray[np.float64]],
) -> Difference:
    a, b = figure(*first), figure(*second)
    tail = (1 - _LEVEL) / 2
    low, high = np.quantile(b[1:] - a[1:], [tail, 1 - tail])
    return Difference(name, unit, float(a[0]), float(b[0]), float(low), float(high), is_better_high)


def _percentile(p: float) -> Figure:
    """The smallest latency that at least p percent of the answered requests do not exceed."""

    def figure(run: Run, weights: NDArray[np.float64]) -> NDArray[np.float64]:
        chosen = np.flatnonzero(run.samples.is_answered & (run.second < run.seconds))
        order = chosen[np.argsort(run.samples.latency_ms[chosen], kind="stable")]
        latencies, seconds = run.samples.latency_ms[order], run.second[order]
        return np.array([_weighted_rank(latencies, row[seconds], p) for row in weights])

    return figure


def _weighted_rank(ordered: NDArray[np.float64], weights: NDArray[np.float64], p: float) -> float:
    if not len(ordered):
        return np.nan
    reached = np.cumsum(weights)
    return float(ordered[min(np.searchsorted(reached, reached[-1] * p / 100), len(ordered) - 1)])


def _mean_latency(run: Run, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    answered = run.samples.is_answered
    total = weights @ run.sums(np.where(answered, run.samples.latency_ms, 0.0))
    return np.asarray(total / (weights @ run.sums(answered)), np.float64)


def _images_per_s(run: Run, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.asarray(weights @ run.sums(run.samples.images) / run.seconds, np.float64)


def _errors(run: Run, weights: NDArray[np.float64]) -> NDArray[np.float64]:
    failed = run.sums(~run.samples.is_answered)
    requests = run.sums(np.ones(len(run.samples.at_s)))
    return np.asarray(100 * (weights @ failed) / (weights @ requests), np.float64)


# Name → unit, whether more is better, and how it is found.
_FIGURES: Final[Mapping[str, tuple[str, bool, Figure]]] = {
    "p50": ("ms", False, _percentile(50)),
    "p95": ("ms", False, _percentile(95)),
    "p99": ("ms", False, _percentile(99)),
    "mean": ("ms", False, _mean_latency),
    "images": ("/s", True, _images_per_s),
    "errors": ("%", False, _errors),
}


def _row(difference: Difference) -> tuple[str, ...]:
    gap = difference.b - difference.a
    share = f" ({gap / difference.a:+.1%})" if difference.a else ""
    word = ("worse" if difference.is_worse else "better") if difference.is_shown else "not shown to differ"
    return (
        f"{difference.name} {difference.unit}",
        f"{difference.a:,.3f}",
        f"{difference.b:,.3f}",
        f"{gap:+,.3f}{share}",
        f"{difference.low:+,.3f} … {difference.high:+,.3f}",
        word,
    )


def _verdict(differences: Iterable[Difference]) -> str:
    shown = [difference for difference in differences if difference.is_shown]
    worse = [difference.name for difference in shown if difference.is_worse]
    better = [difference.name for difference in shown if not difference.is_worse]
    if not shown:
        return "verdict: no difference is shown"
    words = (("worse", worse), ("better", better))
    return "verdict: " + "; ".join(f"B is {word} in {', '.join(names)}" for word, names in words if names)
