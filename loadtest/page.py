"""A run as ``report.html``: one file, nothing fetched."""

from __future__ import annotations

import io
from collections.abc import Sequence
from importlib import resources
from pathlib import Path
from typing import Final

import jinja2
from markupsafe import Markup
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from loadtest.answers import OK
from loadtest.measurement import Sample, Summary, summarise
from loadtest.report import Result, as_text, measured

FILE_NAME: Final = "report.html"
_SHOWN: Final = (50.0, 95.0, 99.0)
# Stretches of time, each of so many requests at least, or its percentiles were single requests.
_MOST_WINDOWS: Final = 60
_REQUESTS_A_WINDOW: Final = 20


def write(result: Result, samples: Sequence[Sample], folder: Path) -> Path:
    """Writes ``report.html`` into ``folder`` and returns its path."""
    path = folder / FILE_NAME
    path.write_text(page(result, samples), encoding="utf-8")
    return path


def page(result: Result, samples: Sequence[Sample]) -> str:
    """The report as HTML."""
    source = (resources.files("loadtest") / "templates" / "report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    return environment.from_string(source).render(
        result=result,
        text=as_text(result),
        measured=measured,
        percentiles=_SHOWN,
        failures={kind: n for kind, n in result.total.by_kind.items() if kind != OK},
        charts=_charts(result, samples),
    )


def _charts(result: Result, samples: Sequence[Sample]) -> dict[str, Markup]:
    """Title → SVG."""
    windows, length_s = _windows(samples)
    steps = [step.summary for step in result.steps]
    return {
        "Latency by load": _latency_by_load(*((steps, "o-") if len(steps) > 1 else (windows, "o"))),
        "Latency over time": _latency_over_time(windows, length_s),
        "Stages": _stages(result.total),
    }


def _windows(samples: Sequence[Sample]) -> tuple[list[Summary], float]:
    """The run cut into equal stretches of time, and the seconds of each."""
    count = min(_MOST_WINDOWS, max(1, len(samples) // _REQUESTS_A_WINDOW))
    length_s = max((sample.at_s for sample in samples), default=0.0) / count or 1.0
    windows: list[list[Sample]] = [[] for _ in range(count)]
    for sample in samples:
        windows[min(int(sample.at_s / length_s), count - 1)].append(sample)
    return [summarise(window, length_s) for window in windows], length_s


def _latency_by_load(summaries: Sequence[Summary], style: str) -> Markup:
    """A point each: steps, or where there was one load only, stretches of time."""
    figure, axes = _figure("images/s answered", "ms")
    ordered = sorted(summaries, key=lambda summary: summary.images_per_s)
    for p in _SHOWN:
        axes.plot(
            [summary.images_per_s for summary in ordered],
            [summary.percentiles[p] for summary in ordered],
            style,
            markersize=4,
            label=f"p{p:g}",
        )
    return _svg(figure, axes)


def _latency_over_time(windows: Sequence[Summary], length_s: float) -> Markup:
    figure, axes = _figure("seconds from the start", "ms")
    moments = [(position + 0.5) * length_s for position in range(len(windows))]
    for p in _SHOWN:
        axes.plot(moments, [summary.percentiles[p] for summary in windows], ".-", label=f"p{p:g}")
    return _svg(figure, axes)


def _stages(summary: Summary) -> Markup:
    figure, axes = _figure("ms, median", "")
    axes.set_yscale("linear")
    axes.barh([*summary.stages_ms], [*summary.stages_ms.values()])
    axes.invert_yaxis()
    return _svg(figure, None)


def _figure(x: str, y: str) -> tuple[Figure, Axes]:
    figure = Figure((7.5, 3.2), layout="constrained")
    axes = figure.subplots()
    axes.set_xlabel(x)
    axes.set_ylabel(y)
    axes.set_yscale("log")
    axes.grid(alpha=0.3)
    return figure, axes


def _svg(figure: Figure, axes: Axes | None) -> Markup:
    if axes is not None:
        axes.legend()
    text = io.StringIO()
    figure.savefig(text, format="svg", metadata={"Date": None})
    svg = text.getvalue()
    return Markup(svg[svg.index("<svg") :])  # noqa: S704  # matplotlib's own text, without a client's words
