"""Which of two model files is the faster, and how sure that is.

::

    pair      reference ×r, file ×r        in the other order every second time
    sample    the shortest of r runs: what else the machine does only ever adds; one run before them is
              not counted, since until then the other session's threads still spin
    speed-up  reference / file, its median over all pairs and the interval that holds the median

Timing the two next to each other keeps what else the machine does out of their ratio.
"""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import median
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track

from model_export.records import SpeedUp
from service.artifact import INPUT_NAME

Feed = Mapping[str, NDArray[np.uint8]]

CONFIDENCE: Final = 0.95
PAIRS: Final = 21
SHORTEST_SAMPLE_S: Final = 0.02  # a shorter one is mostly the clock and the scheduler
MOST_RUNS: Final = 1000


def speed_up(
    model_file: Path, reference: Path, images: NDArray[np.uint8], *, console: Console | None = None
) -> SpeedUp:
    """How many times as fast as ``reference`` a model file answers the same batch, on this CPU.

    Args:
        model_file: The ONNX file.
        reference: The one that it is compared with.
        images: uint8 [N, H, W, C], one batch.
        console: Where progress is shown; None: nowhere.
    """
    slow, fast = (
        ort.InferenceSession(str(path), providers=["CPUExecutionProvider"])
        for path in (reference, model_file)
    )
    timed = timed_pairs(slow, fast, {INPUT_NAME: images}, pairs=PAIRS, console=console)
    ratios = [of_reference / of_file for of_reference, of_file in timed]
    return SpeedUp(median(ratios), *interval_of_median(ratios))


def timed_pairs(
    first: ort.InferenceSession,
    second: ort.InferenceSession,
    feed: Feed,
    *,
    pairs: int,
    console: Console | None = None,
) -> list[tuple[float, float]]:
    """Seconds of one run of either session, pair by pair.

    Args:
        first: Ready to run.
        second: Likewise.
        feed: The same for both.
        pairs: How many.
        console: Where progress is shown; None: nowhere.
    """
    runs = [_runs_a_sample(session, feed) for session in (first, second)]
    found = []
    for number in track(range(pairs), "comparing speeds", console=console or Console(quiet=True)):
        if number % 2:
            after, before = _seconds(second, feed, runs[1]), _seconds(first, feed, runs[0])
        else:
            before, after = _seconds(first, feed, runs[0]), _seconds(second, feed, runs[1])
        found.append((before, after))
    return found


def interval_of_median(values: Sequence[float], confidence: float = CONFIDENCE) -> tuple[float, float]:
    """The order statistics that hold the median with at least this confidence.

    With n independent values, k of them lie below the median with probability C(n, k)/2ⁿ, whatever their
    distribution: no normality is assumed.

    Raises:
        ValueError: So few values cannot be that sure.
    """
    ordered, n = sorted(values), len(values)
    tail, rank = 0.0, 0
    while rank < n // 2 and tail + math.comb(n, rank) / 2**n <= (1 - confidence) / 2:
        tail += math.comb(n, rank) / 2**n
        rank += 1
    if rank == 0:
        raise ValueError(f"{n} values hold the median with less than {confidence:.0%}")
    return ordered[rank - 1], ordered[n - rank]


def _runs_a_sample(session: ort.InferenceSession, feed: Feed) -> int:
    _seconds(session, feed, 1)  # the first runs allocate
    return min(MOST_RUNS, math.ceil(SHORTEST_SAMPLE_S / _seconds(session, feed, 1)))


def _seconds(session: ort.InferenceSession, feed: Feed, runs: int) -> float:
    session.run(None, feed)
    shortest = math.inf
    for _ in range(runs):
        started = time.perf_counter()
        session.run(None, feed)
        shortest = min(shortest, time.perf_counter() - started)
    return shortest
