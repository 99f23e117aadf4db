"""Cost tables for the terminal."""

from __future__ import annotations

from collections import Counter
from typing import Final

from rich.console import Console
from rich.table import Table

from model_export.records import CostTable, LayerCost

_SLOWEST: Final = 12  # nodes that the terminal names


def print_table(table: CostTable, console: Console, *, title: str) -> None:
    """Every layer of ``table`` and their sum.

    Args:
        table: What to show.
        console: Where.
        title: Above it.
    """
    grid = Table(title=title, title_justify="left", show_footer=True)
    grid.add_column("layer", "total")
    grid.add_column("operator")
    grid.add_column("output")
    totals = (table.parameters, table.weight_bytes, table.activation_bytes, table.macs)
    for heading, total in zip(("parameters", "weights, B", "activations, B", "MACs"), totals, strict=True):
        grid.add_column(heading, f"{total:,}", justify="right")
    grid.add_column(
        "MACs/B", f"{table.macs / table.moved_bytes:.1f}" if table.moved_bytes else "", justify="right"
    )
    for layer in table.layers:
        grid.add_row(*_cells(layer))
    console.print(grid)
    console.print(
        f"peak memory {table.peak_bytes:,} B of activations at once; {table.moved_bytes:,} B moved, "
        f"{table.batch_norm_share:.1%} of them by BatchNorms"
    )
    _print_unknown(table, console)
    if table.times:
        _print_times(table, console)


def print_comparison(before: CostTable, after: CostTable, console: Console) -> None:
    """The totals before and after the fold, side by side."""
    grid = Table(title="cost of one picture", title_justify="left")
    for heading in ("", "before the fold", "after", "saved"):
        grid.add_column(heading, justify="left" if not heading else "right")
    for heading, old, new in (
        ("operators", len(before.layers), len(after.layers)),
        ("parameters", before.parameters, after.parameters),
        ("weights, B", before.weight_bytes, after.weight_bytes),
        ("activations, B", before.activation_bytes, after.activation_bytes),
        ("peak activations, B", before.peak_bytes, after.peak_bytes),
        ("bytes moved", before.moved_bytes, after.moved_bytes),
        ("MACs", before.macs, after.macs),
    ):
        grid.add_row(heading, f"{old:,}", f"{new:,}", _saved(old, new))
    if before.times and after.times:
        times = (f"{1e6 * before.seconds:,.0f}", f"{1e6 * after.seconds:,.0f}")
        grid.add_row("measured, µs", *times, _saved(before.seconds, after.seconds))
    console.print(grid)


def _saved(old: float, new: float) -> str:
    return f"{(old - new) / old:.1%}" if old else ""


def _print_times(table: CostTable, console: Console) -> None:
    """The slowest nodes, and what BatchNorms take."""
    slowest = sorted(table.times, key=lambda each: -each.seconds)[:_SLOWEST]
    grid = Table(title="where the time goes", title_justify="left")
    for heading in ("node", "operator", "µs", "share"):
        grid.add_column(heading, justify="right" if heading in ("µs", "share") else "left")
    for each in slowest:
        share = f"{each.seconds / table.seconds:.1%}"
        grid.add_row(each.name, each.operator, f"{1e6 * each.seconds:,.1f}", share)
    console.print(grid)
    console.print(
        f"measured {1e6 * table.seconds:,.0f} µs for one picture in {len(table.times)} nodes, "
        f"{table.batch_norm_time_share:.1%} of it in BatchNorms that are computed as such"
    )


def _cells(layer: LayerCost) -> tuple[str, ...]:
    numbers = (layer.parameters, layer.weight_bytes, layer.activation_bytes, layer.macs)
    operator = layer.operator if layer.known else f"{layer.operator} (unknown)"
    shape = "×".join(map(str, layer.output_shape))
    intensity = f"{layer.intensity:.1f}" if layer.macs else ""
    counts = (f"{number:,}" if number else "" for number in numbers)
    return layer.name, operator, shape, *counts, intensity


def _print_unknown(table: CostTable, console: Console) -> None:
    unknown = Counter(layer.operator for layer in table.layers if not layer.known)
    if unknown:
        names = ", ".join(f"{name} ({times})" for name, times in sorted(unknown.items()))
        console.print(f"[yellow]operators without a cost rule, counted as 0 MACs:[/] {names}")
