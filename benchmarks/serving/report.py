"""The result of a benchmark: one table a workload, one picture, one JSON file."""

from __future__ import annotations

import json
import os
import platform
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict
from pathlib import Path

from benchmarks.serving.comparison import Median, Ratio, medians, ratios
from benchmarks.serving.limits import Limits
from benchmarks.serving.rounds import Cell, Plan


def write(folder: Path, plan: Plan, cells: Sequence[Cell], limits: Mapping[str, Limits]) -> str:
    """Writes ``result.json``, ``table.md`` and ``picture.svg`` into the folder and returns the table."""
    folder.mkdir(parents=True, exist_ok=True)
    document = {
        "machine": {
            "cores": os.cpu_count(),
            "processor": platform.processor(),
            "python": platform.python_version(),
        },
        "plan": asdict(plan),
        "limits": {name: asdict(each) | {"images_per_s": each.images_per_s} for name, each in limits.items()},
        "medians": [asdict(each) for each in medians(cells)],
        "ratios": [asdict(each) for each in ratios(cells)],
        "cells": [asdict(cell) for cell in cells],
    }
    (folder / "result.json").write_text(json.dumps(document, indent=2) + "\n", encoding="utf-8")
    text = table(cells, limits)
    (folder / "table.md").write_text(text, encoding="utf-8")
    _draw(medians(cells), limits, folder / "picture.svg")
    return text


def table(cells: Sequence[Cell], limits: Mapping[str, Limits]) -> str:
    """Images a second (p99 in ms) by contender and concurrency, as Markdown."""
    return "\n".join(
        line for workload, limit in limits.items() for line in (*_section(workload, cells, limit), "")
    )


def _section(workload: str, cells: Sequence[Cell], limit: Limits) -> Iterable[str]:
    rows = [median for median in medians(cells) if median.workload == workload]
    compared = {
        (ratio.contender, ratio.concurrency): ratio for ratio in ratios(cells) if ratio.workload == workload
    }
    concurrencies = sorted({row.concurrency for row in rows})
    yield f"### {workload}"
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
    rest = " |" * (len(concurrencies) + 2)
    yield f"| limit: decoding and inference on {limit.cores} cores | {limit.images_per_s:,.0f} |{rest}"


def _shown(row: Median, ratio: Ratio | None) -> str:
    text = f"{row.images_per_s:,.0f} ({row.p99_ms:.1f})"
    if row.failures:
        text += f", {row.failures} failed"
    return text if ratio is None else f"{text} ×{ratio.median:.2f}"


def _draw(rows: Sequence[Median], limits: Mapping[str, Limits], path: Path) -> None:
    from matplotlib.figure import Figure  # slow to import; the table does not need it

    figure = Figure(figsize=(5 * len(limits), 4), layout="constrained")
    for position, (workload, limit) in enumerate(limits.items(), start=1):
        axes = figure.add_subplot(1, len(limits), position)
        for contender in dict.fromkeys(row.contender for row in rows if row.workload == workload):
            own = [row for row in rows if (row.workload, row.contender) == (workload, contender)]
            axes.plot(
                [row.concurrency for row in own], [row.images_per_s for row in own], "o-", label=contender
            )
        axes.axhline(limit.images_per_s, linestyle=":", color="gray", label="decoding + inference")
        axes.set(title=workload, xlabel="concurrency", ylabel="images/s", xscale="log", ylim=(0, None))
        axes.legend(fontsize="x-small")
    figure.savefig(path)
