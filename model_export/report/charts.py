"""Pictures as SVG text: they need no library to look at, scale, and follow the page's colours.

Colours are CSS classes of the page (``s0``, ``s1`` for series, ``grid``, ``axis``), so light and dark
both work. Coordinates are in pixels of the view box; y grows downwards.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

from markupsafe import Markup

WIDTH: Final = 440
HEIGHT: Final = 220
_LEFT, _RIGHT, _TOP, _BOTTOM = 48, 12, 12, 30


@dataclass(frozen=True, slots=True)
class Series:
    """One line of a chart: a name for the legend, and its y values at x = 1, 2, …"""

    name: str
    values: tuple[float, ...]


def line_chart(series: Sequence[Series], *, label: str, is_share: bool = False) -> Markup:
    """Lines over epochs, with a legend at their ends.

    Args:
        series: At most two, of the same length, at least one value each.
        label: For people who cannot see it.
        is_share: Ticks in percent.
    """
    length = len(series[0].values)
    low, high = _range([value for each in series for value in each.values])
    parts = [_horizontal_grid(low, high, is_share), _epoch_ticks(length)]
    for position, each in enumerate(series):
        points = [(_x(index, length), _y(value, low, high)) for index, value in enumerate(each.values)]
        path = " ".join(f"{x:.1f},{y:.1f}" for x, y in points)
        parts.append(f'<polyline class="line s{position}" points="{path}"/>')
        parts += [
            f'<circle class="dot s{position}" cx="{x:.1f}" cy="{y:.1f}" r="3"><title>{escape(each.name)}, '
            f"epoch {index + 1}: {_number(value, is_share)}</title></circle>"
            for index, ((x, y), value) in enumerate(zip(points, each.values, strict=True))
        ]
    return _svg("".join(parts), WIDTH, HEIGHT, label)


def reliability_chart(
    confidence: Sequence[float], right: Sequence[float], instances: Sequence[int]
) -> Markup:
    """Share of right answers by confidence; on the diagonal the network knows what it knows."""
    side, margin = 200, 34
    total = max(1, sum(instances))
    parts = [f'<line class="grid dashed" x1="{margin}" y1="{side}" x2="{margin + side}" y2="0"/>']
    parts.append(f'<path class="axis" d="M{margin} 0V{side}H{margin + side}"/>')
    for share in (0.0, 0.5, 1.0):
        y = side * (1 - share)
        parts.append(
            f'<text class="tick" x="{margin - 6}" y="{y + 4:.0f}" text-anchor="end">{share:.0%}</text>'
        )
        x = margin + side * share
        parts.append(
            f'<text class="tick" x="{x:.0f}" y="{side + 16}" text-anchor="middle">{share:.0%}</text>'
        )
    for sure, hit, count in zip(confidence, right, instances, strict=True):
        if count:
            radius = 3 + 9 * math.sqrt(count / total)
            title = f"{count:,} answers with {sure:.1%} confidence: {hit:.1%} right"
            parts.append(
                f'<circle class="bubble s0" cx="{margin + side * sure:.1f}" cy="{side * (1 - hit):.1f}" '
                f'r="{radius:.1f}"><title>{title}</title></circle>'
            )
    label = "share of right answers by confidence"
    return _svg("".join(parts), margin + side + 14, side + 22, label, top=-14, extra=14)


def confusion_chart(confusion: Sequence[Sequence[int]], labels: Sequence[str]) -> Markup:
    """Rows are true labels, columns answers; the darker, the larger the share of its row."""
    cell = max(14, min(34, 480 // len(labels)))
    left, top = 8 + 7 * min(14, max(map(len, labels))), 20
    side = cell * len(labels)
    parts = []
    for row, (label, counts) in enumerate(zip(labels, confusion, strict=True)):
        y = top + row * cell
        parts.append(_tick(left - 6, y + cell / 2 + 4, label[:14], "end"))
        for column, count in enumerate(counts):
            parts.append(_cell(left + column * cell, y, cell, count, sum(counts), row == column))
    parts += [
        _tick(left + (column + 0.5) * cell, top - 6, label[: max(1, cell // 8)])
        for column, label in enumerate(labels)
    ]
    return _svg("".join(parts), left + side + 4, top + side + 4, "confusion matrix")


def bar(share: float, *, series: int = 0) -> Markup:
    """A bar for a table cell: ``share`` of its width, 0…1."""
    width = max(0.0, min(1.0, share)) * 100
    return Markup(  # noqa: S704 - numbers alone
        '<svg class="bar" viewBox="0 0 100 8" preserveAspectRatio="none" aria-hidden="true">'
        '<rect class="track" width="100" height="8" rx="1"/>'
        f'<rect class="s{series}" width="{width:.2f}" height="8" rx="1"/></svg>'
    )


def log_share(error: float, tolerance: float, decades: float = 8) -> float:
    """Where an error stands below its bound, on a logarithmic scale: 1 at the bound, 0 far below."""
    if tolerance <= 0 or error <= 0:
        return 0.0
    return 1 + math.log10(error / tolerance) / decades


def _cell(x: float, y: float, size: int, count: int, total: int, is_right: bool) -> str:
    share = count / total if total else 0.0
    series = "s0" if is_right else "s1"
    rect = (
        f'<rect class="{series}" x="{x:.0f}" y="{y:.0f}" width="{size - 1}" height="{size - 1}" rx="2" '
        f'fill-opacity="{0.06 + 0.94 * math.sqrt(share) if count else 0.04:.2f}"/>'
    )
    if not count or size < 22:
        return rect
    tone = "on" if share > 0.3 else "tick"
    return rect + (
        f'<text class="{tone}" x="{x + size / 2:.0f}" y="{y + size / 2 + 4:.0f}" text-anchor="middle">'
        f"{count}</text>"
    )


def _range(values: Sequence[float]) -> tuple[float, float]:
    low, high = min(values), max(values)
    margin = 0.05 * (high - low) or 0.5 * abs(high) or 1.0
    return low - margin, high + margin


def _x(index: int, length: int) -> float:
    span = WIDTH - _LEFT - _RIGHT
    return _LEFT + (span / 2 if length == 1 else span * index / (length - 1))


def _y(value: float, low: float, high: float) -> float:
    return _TOP + (HEIGHT - _TOP - _BOTTOM) * (high - value) / (high - low)


def _horizontal_grid(low: float, high: float, is_share: bool) -> str:
    lines = []
    for tick in _ticks(low, high):
        y = _y(tick, low, high)
        lines.append(f'<line class="grid" x1="{_LEFT}" y1="{y:.1f}" x2="{WIDTH - _RIGHT}" y2="{y:.1f}"/>')
        lines.append(_tick(_LEFT - 6, y + 4, _number(tick, is_share), "end"))
    return "".join(lines)


def _ticks(low: float, high: float) -> list[float]:
    """Three to six round numbers between ``low`` and ``high``."""
    raw = (high - low) / 4
    power = 10.0 ** math.floor(math.log10(raw))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= raw)
    first = math.ceil(low / step)
    return [step * index for index in range(first, math.floor(high / step) + 1)]


def _epoch_ticks(length: int) -> str:
    step = max(1, math.ceil(length / 10))
    return "".join(_tick(_x(index, length), HEIGHT - 8, str(index + 1)) for index in range(0, length, step))


def _tick(x: float, y: float, text: str, anchor: str = "middle") -> str:
    return f'<text class="tick" x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(text)}</text>'


def _number(value: float, is_share: bool) -> str:
    return f"{value:.1%}" if is_share else f"{value:.3g}"


def _svg(
    content: str, width: float, height: float, label: str, *, top: float = 0, extra: float = 0
) -> Markup:
    view = f"0 {top:.0f} {width:.0f} {height + extra:.0f}"
    return Markup(  # noqa: S704 - every text in `content` is escaped where it is written
        f'<svg viewBox="{view}" width="{width:.0f}" role="img" aria-label="{escape(label)}">{content}</svg>'
    )
