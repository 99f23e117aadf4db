"""What a benchmark keeps, and the page that it makes of it: one table a workload, and one picture.

Each workload is kept in a file of its own, so that they can be measured one at a time.
"""

from __future__ import annotations

import math
import os
import platform
import statistics
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Final

from pydantic import TypeAdapter, ValidationError

from benchmarks.serving.answers import OWN_DECODER_TOLERANCE, TOLERANCE
from benchmarks.serving.comparison import Median, Ratio, medians, ratios, shares
from benchmarks.serving.contenders import CONTENDERS
from benchmarks.serving.limits import Limits, best_way, by_decoder, highest
from benchmarks.serving.rounds import CHECKED, Cell, Plan, Round
from benchmarks.serving.server import REPEATS
from benchmarks.serving.workloads import NAMES
from service.artifact import Precision

# The contender that infers nothing.
FLOOR: Final = "constant"
HEAD: Final = f"""# The service beside others

Every server has the same model file, the same ONNX Runtime and the same pictures; the others decode with the
same Pillow. Closed loop, by wrk on the same machine. Before and after the measurements of a contender in a
round, {CHECKED} pictures are asked for at once, {REPEATS} times over: class and probability of each have to
be those that Pillow and ONNX Runtime find for it alone (to {TOLERANCE[Precision.FP32]:g};
to {OWN_DECODER_TOLERANCE:g} with another decoder; to {TOLERANCE[Precision.INT8]:g} in int8).
Contenders take turns, in a new order each round. A cell is the median of the rounds: images a
second (p99 in ms), and ×, our rate over theirs in the same round. *CPU-ms* an image and *MB* (shared pages
counted once) are those of the highest concurrency; *ready* is from the start of the process to its first
answer. *limit*: decoding and inference in its best way on all cores, with no service around them, measured
in every round like the contenders, once with Pillow and once with our own decoder, which reads a JPEG no
finer than it is needed; *over the limit*: our rate over the higher of the two in the same round. `constant`:
a bare ASGI function that answers without looking, in one process; not in the picture. 0: nobody was answered
while it was measured. `foldserve` has its default settings; `foldserve-1` is the same with one worker, where
the default starts several, and is shown only there. What decides about batches, and what was tried, is in
[batching.md](batching.md).

Made by `make bench`, which needs wrk (`apt-get install wrk`) and takes about an hour, or 25 minutes with
`ARGS="--rounds 3 --seconds 2"`.
"""


class UnreadableResults(Exception):
    """What was kept cannot be read."""


@dataclass(frozen=True, slots=True)
class Measured:
    """One workload, as far as it is measured.

    Attributes:
        plan: How much is to be measured.
        limits: One a round.
        machine: In words.
        about: Network and pictures, in words.
    """

    plan: Plan
    limits: tuple[Limits, ...]
    cells: tuple[Cell, ...]
    machine: str
    about: str

    def with_round(self, played: Round) -> Measured:
        """The same with one more round."""
        return replace(self, limits=(*self.limits, played.limits), cells=(*self.cells, *played.cells))


_FILE: Final = TypeAdapter(Measured)


def this_machine() -> str:
    """In words."""
    return f"{os.cpu_count()} cores of {platform.machine()}, Python {platform.python_version()}"


def keep(folder: Path, workload: str, measured: Measured) -> None:
    """Writes ``results/<workload>.json`` into the folder."""
    path = _results(folder) / f"{workload}.json"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(_FILE.dump_json(measured, indent=2))


def kept(folder: Path) -> dict[str, Measured]:
    """What is kept in the folder, by workload, in their order.

    Raises:
        UnreadableResults: A file is of another version.
    """
    paths = {path.stem: path for path in sorted(_results(folder).glob("*.json"))}
    names = [*(name for name in NAMES if name in paths), *(name for name in paths if name not in NAMES)]
    return {name: _read(paths[name]) for name in names}


def lacking(measured: Mapping[str, Collection[str]]) -> list[str]:
    """What the whole comparison has and this lacks: workloads, and contenders of a workload.

    Args:
        measured: The contenders of each workload.
    """
    found: list[str] = []
    for name in NAMES:
        if name not in measured:
            found.append(name)
            continue
        wanted = (each.name for each in CONTENDERS.values() if each.takes_part_in(name))
        found += [f"{each} in {name}" for each in wanted if each not in measured[name]]
    return found


def write(page: Path, measured: Mapping[str, Measured]) -> None:
    """Writes the page, and its picture beside it."""
    picture = page.with_suffix(".svg")
    _draw(measured, picture)
    text = f"{HEAD}\n![Images a second by concurrency]({picture.name})\n\n{table(measured)}"
    page.write_text(text, encoding="utf-8")


def table(measured: Mapping[str, Measured]) -> str:
    """Images a second (p99 in ms) by contender and concurrency, as Markdown."""
    return "\n".join(line for name, each in measured.items() for line in (*_section(name, each), ""))


def _read(path: Path) -> Measured:
    try:
        measured = _FILE.validate_json(path.read_bytes())
    except ValidationError as error:
        raise UnreadableResults(f"{path} was written by another version: delete it") from error
    if not measured.limits or not measured.cells:
        raise UnreadableResults(f"{path} has no round of measurements: delete it")
    return measured


def _how(measured: Measured) -> str:
    rounds = len(measured.limits)
    many = f"{rounds} round{'s' if rounds > 1 else ''}"
    return f"{many} of {measured.plan.seconds:g} s a cell, on {measured.machine}."


def _results(folder: Path) -> Path:
    return folder / "results"


def _section(workload: str, measured: Measured) -> Iterable[str]:
    cells, limits = measured.cells, measured.limits
    rows = [median for median in medians(cells) if median.workload == workload]
    compared = {
        (ratio.contender, ratio.concurrency): ratio for ratio in ratios(cells) if ratio.workload == workload
    }
    concurrencies = sorted({row.concurrency for row in rows})
    yield f"## {workload}"
    yield ""
    yield f"{measured.about} {_how(measured)}"
    yield ""
    columns = " | ".join(map(str, concurrencies))
    yield f"| images/s (p99 in ms), ours over theirs | {columns} | CPU-ms | MB | ready s |"
    yield f"| --- |{' --- |' * (len(concurrencies) + 3)}"
    for contender in dict.fromkeys(row.contender for row in rows):
        own = [row for row in rows if row.contender == contender]
        shown = [_shown(row, compared.get((contender, row.concurrency))) for row in own]
        last = own[-1]
        weights = f"{last.cpu_ms:.2f} | {last.memory_bytes / 2**20:.0f} | {last.ready_s:.1f}"
        yield f"| {contender} | {' | '.join(shown)} | {weights} |"
    reached = {share.concurrency: f"×{share.median:.2f}" for share in shares(cells, limits)}
    if reached:
        of_each = " | ".join(reached.get(concurrency, "") for concurrency in concurrencies)
        yield f"| foldserve over the limit | {of_each} | | | |"
    yield ""
    yield from _bounds(limits)


def _bounds(limits: Sequence[Limits]) -> Iterable[str]:
    """What decoding, inference and both of them can do without a service."""
    cores, way = limits[0].cores, best_way(limits)
    yield f"| without a service, on {cores} cores | images/s |"
    yield "| --- | --- |"
    for decoder in limits[0].decode_per_s:
        alone = statistics.median(each.decode_per_s[decoder] for each in limits)
        yield f"| decoding alone, {decoder}, on one core | {alone:,.0f} |"
    alone = statistics.median(each.infer_per_s[way] for each in limits)
    yield f"| inference alone, batches of {way} | {alone:,.0f} |"
    for decoder, rates in by_decoder(limits).items():
        yield f"| limit: both, {decoder} | {statistics.median(rates):,.0f} |"


def _shown(row: Median, ratio: Ratio | None) -> str:
    text = f"{row.images_per_s:,.0f} ({row.p99_ms:.1f})"
    if row.failures:
        text += f", {row.failures} failed"
    return text if ratio is None else f"{text} ×{_times(ratio.median)}"


def _times(ratio: float) -> str:
    return f"{ratio:.2f}" if math.isfinite(ratio) else "∞"


def _draw(measured: Mapping[str, Measured], path: Path) -> None:
    import matplotlib as mpl  # slow to import; the table does not need it
    from matplotlib.figure import Figure

    figure = Figure(figsize=(4 * len(measured), 3.6), layout="constrained")
    for position, (workload, each) in enumerate(measured.items(), start=1):
        axes = figure.add_subplot(1, len(measured), position)
        rows = medians(each.cells)
        for contender in dict.fromkeys(row.contender for row in rows if row.contender != FLOOR):
            own = [row for row in rows if row.contender == contender]
            axes.plot(
                [row.concurrency for row in own], [row.images_per_s for row in own], "o-", label=contender
            )
        axes.axhline(
            statistics.median(highest(each.limits)),
            linestyle=":",
            color="gray",
            label="decoding + inference",
        )
        axes.set(title=workload, xlabel="concurrency", ylabel="images/s", xscale="log", ylim=(0, None))
        axes.legend(fontsize="x-small")
    # The same figures make the same file.
    with mpl.rc_context({"svg.fonttype": "none", "svg.hashsalt": "serving"}):
        figure.savefig(path, metadata={"Date": None})
