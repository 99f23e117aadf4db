"""Interleaved rounds: every contender once a round, and the limits, in a new order each time."""

from __future__ import annotations

import random
import tempfile
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.serving import generator, limits, server
from benchmarks.serving.answers import tolerance
from benchmarks.serving.contenders import Contender
from benchmarks.serving.limits import Limits
from benchmarks.serving.workloads import Workload
from loadtest.bodies import Body, encode

WARM_UP_S = 1.0
CHECKED = 8  # bodies that are asked for at once, and whose answers are checked, before and after


@dataclass(frozen=True, slots=True)
class Cell:
    """One contender at one concurrency in one round.

    Attributes:
        cpu_ms: Processor milliseconds an image, of the server alone.
        memory_bytes: Right after the load.
        ready_s: From the start of the process to its first answer.
    """

    workload: str
    contender: str
    concurrency: int
    round: int
    images_per_s: float
    p50_ms: float
    p99_ms: float
    failures: int
    cpu_ms: float
    memory_bytes: int
    ready_s: float


@dataclass(frozen=True, slots=True)
class Round:
    """What was measured in one round: the limits, and the cells of every contender."""

    limits: Limits
    cells: tuple[Cell, ...]


@dataclass(frozen=True, slots=True)
class Plan:
    """How much is measured."""

    rounds: int
    seconds: float
    concurrencies: tuple[int, ...]
    seed: int = 0


def play(
    plan: Plan, workload: Workload, contenders: Sequence[Contender], progress: Callable[[str], None]
) -> Iterator[Round]:
    """The rounds of a workload, each as soon as it is over.

    Raises:
        WrongAnswer: A contender answered wrongly, or not at all.
    """
    rng = random.Random(plan.seed)
    for number in range(plan.rounds):
        where = f"{workload.name}, round {number + 1}/{plan.rounds}"
        bounds: list[Limits] = []
        cells: list[Cell] = []
        for contender in rng.sample([*contenders, None], len(contenders) + 1):
            if contender is None:
                progress(f"{where}: its limits")
                bounds.append(limits.measure(workload))
            else:
                progress(f"{where}: {contender.name}")
                cells += _measured(plan, workload, contender, number)
        yield Round(bounds[0], tuple(cells))


def _measured(plan: Plan, workload: Workload, contender: Contender, number: int) -> Iterator[Cell]:
    bodies = [encode(contender.form, [picture]) for picture in workload.pictures]
    with (
        tempfile.TemporaryDirectory() as folder,
        server.running(contender, workload.model, bodies[0]) as running,
    ):
        file = generator.write_bodies(bodies, Path(folder) / "bodies")
        checked = bodies[:CHECKED], workload.expected[:CHECKED], _tolerance(workload, contender)
        running.check(*checked)
        _drive(running, file, bodies[0], max(plan.concurrencies), WARM_UP_S)
        for concurrency in plan.concurrencies:
            cpu_s = running.cpu_s()
            load = _drive(running, file, bodies[0], concurrency, plan.seconds)
            yield Cell(
                workload=workload.name,
                contender=contender.name,
                concurrency=concurrency,
                round=number,
                images_per_s=load.requests_per_s,
                p50_ms=load.p50_ms,
                p99_ms=load.p99_ms,
                failures=load.failures,
                cpu_ms=(running.cpu_s() - cpu_s) * 1000 / max(load.requests, 1),
                memory_bytes=running.memory_bytes(),
                ready_s=running.ready_s,
            )
        running.check(*checked)


def _tolerance(workload: Workload, contender: Contender) -> float:
    return tolerance(workload.precision, has_own_decoder=contender.has_own_decoder)


def _drive(
    running: server.Server, bodies: Path, example: Body, concurrency: int, seconds: float
) -> generator.Load:
    contender = running.contender
    return generator.drive(running.url, contender.path, example.content_type, bodies, concurrency, seconds)
