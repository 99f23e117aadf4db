"""The latency/throughput curves as one SVG, drawn by hand: the service installs no plotting library.

::

    p99, ms (log)
      │            · · · · the objective
      │       ╱
      │  ╱──
      └────────── images a second
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from html import escape
from typing import Final

_WIDTH, _HEIGHT = 760, 440
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 20, 40, 60
_COLOURS: Final = ("#0b6e99", "#c2410c", "#15803d", "#7e22ce")
_TICKS: Final = (1, 2, 5)


@dataclass(frozen=True, slots=True)
class Line:
    """One curve: (images a second, milliseconds), in order."""

    name: str
    points: Sequence[tuple[float, float]]


@dataclass(frozen=True, slots=True)
class _Scale:
    most_per_s: float
    least_ms: float
    most_ms: float

    def x(self, per_s: float) -> float:
        return _LEFT + per_s / self.most_per_s * (_WIDTH - _LEFT - _RIGHT)

    def y(self, ms: float) -> float:
        share = math.log(ms / self.least_ms) / math.log(self.most_ms / self.least_ms)
        return _HEIGHT - _BOTTOM - share * (_HEIGHT - _TOP - _BOTTOM)


def draw(title: str, percentile: float, bound_ms: float, lines: Sequence[Line]) -> str:
    """An SVG document of all curves with the objective's bound."""
    points = [point for line in lines for point in line.points if point[1] > 0]
    milliseconds = [ms for _, ms in points] + [bound_ms]
    scale = _Scale(
        1.05 * max([per_s for per_s, _ in points], default=1.0),
        0.8 * min(milliseconds),
        1.25 * max(milliseconds),
    )
    body = [
        *_axes(scale, f"p{percentile:g} latency, ms"),
        *_bound(scale, bound_ms),
        *(part for number, line in enumerate(lines) for part in _curve(scale, line, number)),
    ]
    return "\n".join(
        [
            f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {_WIDTH} {_HEIGHT}" '
            'font-family="sans-serif" font-size="12">',
            f'<rect width="{_WIDTH}" height="{_HEIGHT}" fill="white"/>',
            _text(_WIDTH / 2, 22, title, 'text-anchor="middle" font-size="15"'),
            *body,
            "</svg>",
            "",
        ]
    )


def _axes(scale: _Scale, label: str) -> Iterator[str]:
    bottom, right = _HEIGHT - _BOTTOM, _WIDTH - _RIGHT
    for ms in _decades(scale.least_ms, scale.most_ms):
        y = scale.y(ms)
        yield f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{right}" y2="{y:.1f}" stroke="#e5e7eb"/>'
        yield _text(_LEFT - 6, y + 4, f"{ms:g}", 'text-anchor="end"')
    step = _step(scale.most_per_s)
    for number in range(int(scale.most_per_s / step) + 1):
        x = scale.x(number * step)
        yield f'<line x1="{x:.1f}" y1="{_TOP}" x2="{x:.1f}" y2="{bottom}" stroke="#e5e7eb"/>'
        yield _text(x, bottom + 16, f"{number * step:,.10g}", 'text-anchor="middle"')
    yield f'<path d="M{_LEFT} {_TOP}V{bottom}H{right}" fill="none" stroke="#111827"/>'
    yield _text((_LEFT + right) / 2, bottom + 34, "images/s", 'text-anchor="middle"')
    middle = (_TOP + bottom) / 2
    yield _text(18, middle, label, f'text-anchor="middle" transform="rotate(-90 18 {middle:.0f})"')


def _bound(scale: _Scale, bound_ms: float) -> Iterator[str]:
    y = scale.y(bound_ms)
    yield (
        f'<line x1="{_LEFT}" y1="{y:.1f}" x2="{_WIDTH - _RIGHT}" y2="{y:.1f}" '
        'stroke="#b91c1c" stroke-dasharray="5 4"/>'
    )
    yield _text(_WIDTH - _RIGHT, y - 5, f"{bound_ms:g} ms", 'text-anchor="end" fill="#b91c1c"')


def _curve(scale: _Scale, line: Line, number: int) -> Iterator[str]:
    colour = _COLOURS[number % len(_COLOURS)]
    places = [(scale.x(per_s), scale.y(ms)) for per_s, ms in line.points if ms > 0]
    path = "L".join(f"{x:.1f} {y:.1f}" for x, y in places)
    if path:
        yield f'<path d="M{path}" fill="none" stroke="{colour}" stroke-width="2"/>'
    for x, y in places:
        yield f'<circle cx="{x:.1f}" cy="{y:.1f}" r="3" fill="{colour}"/>'
    yield _text(_LEFT + 12, _TOP + 16 + 16 * number, line.name, f'fill="{colour}"')


def _decades(least: float, most: float) -> Iterator[float]:
    for power in range(math.floor(math.log10(least)), math.ceil(math.log10(most)) + 1):
        for tick in _TICKS:
            if least <= tick * 10.0**power <= most:
                yield tick * 10.0**power


def _step(most: float) -> float:
    """A round number that goes into ``most`` five to ten times, or so."""
    power = 10.0 ** math.floor(math.log10(most / 5))
    return next(tick * power for tick in (*_TICKS, 10) if most / (tick * power) <= 8)


def _text(x: float, y: float, text: str, attributes: str) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" {attributes}>{escape(text)}</text>'
