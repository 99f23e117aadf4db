"""Medians over the rounds, and ratios of cells that were measured in the same round."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from benchmarks.serving.limits import Limits, highest
from benchmarks.serving.rounds import Cell

OURS = "foldserve"
LIMIT = "limit"


@dataclass(frozen=True, slots=True)
class Median:
    """One contender at one concurrency, over all rounds."""

    workload: str
    contender: str
    concurrency: int
    images_per_s: float
    p50_ms: float
    p99_ms: float
    cpu_ms: float
    memory_bytes: float
    ready_s: float
    failures: int


@dataclass(frozen=True, slots=True)
class Ratio:
    """Our images a second over another's, round by round."""

    workload: str
    contender: str
    concurrency: int
    median: float
    lowest: float
    highest: float


def medians(cells: Sequence[Cell]) -> list[Median]:
    """One a workload, contender and concurrency, in the order of their first cells."""
    return [_median(group) for group in _grouped(cells).values()]


def ratios(cells: Sequence[Cell]) -> list[Ratio]:
    """Ours over each other's; > 1: ours is faster."""
    ours = {
        (cell.workload, cell.concurrency, cell.round): cell.images_per_s
        for cell in cells
        if cell.contender == OURS
    }
    return [
        _ratio(group, [ours[cell.workload, cell.concurrency, cell.round] for cell in group])
        for (workload, contender, concurrency), group in _grouped(cells).items()
        if contender != OURS and (workload, concurrency, group[0].round) in ours
    ]


def shares(cells: Sequence[Cell], limits: Sequence[Limits]) -> list[Ratio]:
    """Ours over the limit of the same round, with the faster decoder; 1: nothing is left to win.

    Args:
        cells: Of one workload.
        limits: Of its rounds, in their order.
    """
    bounds = highest(limits)
    return [
        _ratio(
            [replace(cell, contender=LIMIT, images_per_s=bounds[cell.round]) for cell in group],
            [cell.images_per_s for cell in group],
        )
        for (_, contender, _), group in _grouped(cells).items()
        if contender == OURS
    ]


def _grouped(cells: Iterable[Cell]) -> dict[tuple[str, str, int], list[Cell]]:
    groups: dict[tuple[str, str, int], list[Cell]] = {}
    for cell in cells:
        groups.setdefault((cell.workload, cell.contender, cell.concurrency), []).append(cell)
    return groups


def _median(group: Sequence[Cell]) -> Median:
    first = group[0]
    return Median(
        first.workload,
        first.contender,
        first.concurrency,
        images_per_s=statistics.median(cell.images_per_s for cell in group),
        p50_ms=statistics.median(cell.p50_ms for cell in group),
        p99_ms=statistics.median(cell.p99_ms for cell in group),
        cpu_ms=statistics.median(cell.cpu_ms for cell in group),
        memory_bytes=statistics.median(cell.memory_bytes for cell in group),
        ready_s=statistics.median(cell.ready_s for cell in group),
        failures=sum(cell.failures for cell in group),
    )


def _ratio(group: Sequence[Cell], ours: Sequence[float]) -> Ratio:
    # Who needs longer for a batch than the cell lasts has answered nobody.
    values = [
        own / cell.images_per_s if cell.images_per_s else math.inf
        for own, cell in zip(ours, group, strict=True)
    ]
    first = group[0]
    return Ratio(
        first.workload,
        first.contender,
        first.concurrency,
        statistics.median(values),
        min(values),
        max(values),
    )
