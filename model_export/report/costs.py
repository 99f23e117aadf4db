"""What each layer costs, as bars: a picture of its own, and the tables of the model card."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from model_export.records import CostTable, LayerCost, LayerTime

COSTLIEST: Final = 12  # layers that a table of the card names

_ROW, _BAR, _NAMES, _WIDTH = 16, 130, 260, 640
_TOP: Final = 40
_FILLS: Final = ("#4f83bd", "#d0743c")  # a layer, a BatchNorm: readable on white and on black
_HEADINGS: Final = ("bytes moved", "multiply-adds")


@dataclass(frozen=True, slots=True)
class Share:
    """One row of a table: a layer, its figure, its share of the whole, and of the largest one."""

    name: str
    operator: str
    value: float
    share: float
    length: float
    is_batch_norm: bool


def macs_shares(table: CostTable | None) -> list[Share]:
    """The layers with most multiply-adds, in the order of the network."""
    return [] if table is None else _layer_shares(table, lambda layer: layer.macs)


def byte_shares(table: CostTable | None) -> list[Share]:
    """The layers that move most bytes, in the order of the network."""
    return [] if table is None else _layer_shares(table, lambda layer: layer.moved_bytes)


def time_shares(times: Sequence[LayerTime]) -> list[Share]:
    """The nodes that take most time, the slowest first."""
    total = sum(each.seconds for each in times) or 1.0
    slowest = sorted(times, key=lambda each: -each.seconds)[:COSTLIEST]
    longest = slowest[0].seconds if slowest and slowest[0].seconds else 1.0
    return [
        Share(
            each.name,
            each.operator,
            each.seconds,
            each.seconds / total,
            each.seconds / longest,
            each.is_batch_norm,
        )
        for each in slowest
    ]


def _layer_shares(table: CostTable, figure: Callable[[LayerCost], int]) -> list[Share]:
    total = sum(figure(layer) for layer in table.layers)
    ranked = sorted(table.layers, key=figure, reverse=True)[:COSTLIEST]
    largest = max((figure(layer) for layer in ranked), default=0)
    return [
        Share(
            layer.name,
            layer.operator,
            figure(layer),
            figure(layer) / total,
            figure(layer) / largest,
            _is_batch_norm(layer),
        )
        for layer in table.layers
        if layer in ranked and figure(layer)
    ]


def _is_batch_norm(layer: LayerCost) -> bool:
    return "batch_norm" in layer.operator


def cost_picture(tables: Mapping[str, CostTable]) -> str:
    """Bytes moved and multiply-adds of every layer, BatchNorms in a colour of their own, as one SVG.

    Args:
        tables: By their titles, which stand above them.
    """
    parts, y = [], 0
    for title, table in tables.items():
        layers = [layer for layer in table.layers if layer.moved_bytes]
        share = f"BatchNorms move {table.batch_norm_share:.1%} of the bytes"
        if table.times:
            share += f" and take {table.batch_norm_time_share:.1%} of the time"
        parts.append(_text(0, y + 14, f"{title}: {share}", "bold"))
        parts += [_text(_NAMES + n * 190, y + 32, heading) for n, heading in enumerate(_HEADINGS)]
        parts += _rows(layers, y + _TOP)
        y += _TOP + _ROW * len(layers) + _ROW
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {y}" font-family="sans-serif" '
        f'font-size="11" fill="#808080">{"".join(parts)}</svg>'
    )


def _rows(layers: Sequence[LayerCost], top: int) -> list[str]:
    figures = [(layer.moved_bytes, layer.macs) for layer in layers]
    largest = [max(1, *column) for column in zip(*figures, strict=True)] if figures else []
    parts = []
    for position, (layer, values) in enumerate(zip(layers, figures, strict=True)):
        y = top + position * _ROW
        parts.append(_text(0, y + 11, f"{layer.name}  {layer.operator}"[:44]))
        for column, (value, most) in enumerate(zip(values, largest, strict=True)):
            x, width = _NAMES + column * 190, _BAR * value / most
            fill = _FILLS[_is_batch_norm(layer)]
            parts.append(f'<rect x="{x}" y="{y + 2}" width="{width:.1f}" height="10" fill="{fill}"/>')
            parts.append(_text(x + width + 4, y + 11, f"{value:,}" if value else ""))
    return parts


def _text(x: float, y: float, text: str, weight: str = "normal") -> str:
    return f'<text x="{x:.0f}" y="{y:.0f}" font-weight="{weight}">{escape(text)}</text>'
