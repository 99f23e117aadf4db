"""The Grafana dashboard. ``deploy/grafana/dashboards/foldserve.json`` is written by this file.

::

    row          the question it answers
    Users        How much is asked, how much goes wrong, how long do they wait, is that as promised?
    Stages       Where does the time go?
    Saturation   How much more would fit?
    Batches      Is the engine used well?
    Models       What serves, where, and did a load fail?
    Drift        Does it still meet what it was trained on?

Of several instances rates are added up, and of states the worst is shown, as with several workers.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from grafana_foundation_sdk.builders import dashboard, prometheus, timeseries
from grafana_foundation_sdk.builders.common import StackingConfig, VizLegendOptions, VizTooltipOptions
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models.common import (
    GraphDrawStyle,
    LegendDisplayMode,
    SortOrder,
    StackingMode,
    TooltipDisplayMode,
)
from grafana_foundation_sdk.models.dashboard import DataSourceRef, VariableOption, VariableRefresh

from deploy.alerting import BURNS, DRIFT_LIMIT, LATENCY_OBJECTIVE_S, OBJECTIVES, PREDICTIONS

DASHBOARD_FILE: Final = Path(__file__).with_name("grafana") / "dashboards" / "foldserve.json"
_SOURCE: Final = DataSourceRef(type_val="prometheus", uid="${source}")
_WIDTH: Final = 8  # of 24 columns


@dataclass(frozen=True, slots=True)
class Query:
    """One PromQL expression and how its series are called."""

    expr: str
    legend: str


@dataclass(frozen=True, slots=True)
class Panel:
    """One graph.

    Attributes:
        unit: Grafana's name for it.
        meaning: What a reader should know of it.
        is_stacked: Whether its series are parts of a whole.
        needs_gpu: Whether it is empty without one.
    """

    title: str
    unit: str
    meaning: str
    queries: tuple[Query, ...]
    is_stacked: bool = False
    needs_gpu: bool = False


def _rate(metric: str, by: str, *, model: bool = True) -> str:
    return f"sum by ({by}) (rate({metric}{_of_model(model)}[$__rate_interval]))"


def _quantile(q: float, metric: str, by: str = "", *, model: bool = True) -> str:
    labels = f"le, {by}" if by else "le"
    return f"histogram_quantile({q}, {_rate(f'{metric}_bucket', labels, model=model)})"


def _of_model(is_chosen: bool) -> str:
    return '{model=~"$model"}' if is_chosen else ""


_PREDICT: Final = f"{{{PREDICTIONS}}}"
_DURATION: Final = "foldserve_request_duration_seconds"
_STAGE: Final = "foldserve_stage_duration_seconds"

ROWS: Final[dict[str, tuple[Panel, ...]]] = {
    "Users": (
        Panel(
            "Requests",
            "reqps",
            "Answered requests a second, by status.",
            (Query(_rate(f"foldserve_requests_total{_PREDICT}", "code", model=False), "{{code}}"),),
            is_stacked=True,
        ),
        Panel(
            "Errors",
            "reqps",
            "Requests and images answered with an error, by reason.",
            (
                Query(_rate("foldserve_rejected_total", "reason", model=False), "{{reason}}"),
                Query(_rate("foldserve_cancelled_total", "stage", model=False), "client left: {{stage}}"),
            ),
        ),
        Panel(
            "Latency",
            "s",
            f"From the first byte to the last. The objective is {LATENCY_OBJECTIVE_S:g} s for 99 of 100.",
            tuple(
                Query(
                    f"histogram_quantile({q}, "
                    f"sum by (le) (rate({_DURATION}_bucket{_PREDICT}[$__rate_interval])))",
                    f"p{100 * q:g}",
                )
                for q in (0.5, 0.9, 0.99)
            ),
        ),
        Panel(
            "Budgets",
            "short",
            f"How many times too fast each budget burns. Below 1 it lasts; {BURNS[0].factor:g} pages.",
            tuple(
                Query(f"{objective.series(BURNS[0].windows[1])} / {objective.budget:g}", objective.name)
                for objective in OBJECTIVES
            ),
        ),
    ),
    "Stages": (
        Panel(
            "Time by stage, p99",
            "s",
            "receive, serialize: of a request; decode, queue, inference: of an image.",
            (Query(_quantile(0.99, _STAGE, "stage"), "{{stage}}"),),
        ),
        Panel(
            "Share of the time",
            "percentunit",
            "Seconds spent in each stage, as a share of all.",
            (
                Query(
                    f"{_rate(f'{_STAGE}_sum', 'stage')} / ignoring (stage) group_left "
                    f"sum(rate({_STAGE}_sum{_of_model(True)}[$__rate_interval]))",
                    "{{stage}}",
                ),
            ),
            is_stacked=True,
        ),
        Panel(
            "Event loop",
            "s",
            "How late the event loop is. Above some milliseconds the process gets too little CPU.",
            (Query(_quantile(0.99, "foldserve_event_loop_lag_seconds", model=False), "p99 lag"),),
        ),
    ),
    "Saturation": (
        Panel(
            "Queue",
            "percentunit",
            "Images waiting, of those that would be admitted; at 1 everything is refused.",
            (
                Query(
                    'max by (model) (foldserve_queue_depth{model=~"$model"}'
                    ' / foldserve_queue_capacity{model=~"$model"})',
                    "{{model}}",
                ),
            ),
        ),
        Panel(
            "Wait",
            "s",
            "What an image admitted now would wait, and how long the oldest has.",
            (
                Query(
                    'max by (model) (foldserve_predicted_wait_seconds{model=~"$model"})',
                    "{{model}} predicted",
                ),
                Query('max by (model) (foldserve_queue_age_seconds{model=~"$model"})', "{{model}} oldest"),
            ),
        ),
        Panel(
            "In flight",
            "short",
            "Requests being answered, and worker processes by what they can do.",
            (
                Query("sum(foldserve_inflight_requests)", "requests"),
                Query("sum by (state) (foldserve_workers)", "workers {{state}}"),
            ),
        ),
        Panel(
            "GPU",
            "percentunit",
            "Memory in use and time busy, by whomever; empty where no model runs on a GPU.",
            (
                Query(
                    "max by (instance, gpu) "
                    "(foldserve_gpu_memory_used_bytes / foldserve_gpu_memory_total_bytes)",
                    "{{instance}} {{gpu}} memory",
                ),
                Query(
                    "max by (instance, gpu) (foldserve_gpu_utilization_ratio)", "{{instance}} {{gpu}} busy"
                ),
            ),
            needs_gpu=True,
        ),
    ),
    "Batches": (
        Panel(
            "Images",
            "short",
            "Images a second, by what became of them.",
            (Query(_rate("foldserve_images_total", "model, outcome"), "{{model}} {{outcome}}"),),
            is_stacked=True,
        ),
        Panel(
            "Batch size",
            "short",
            "Mean images in a batch. It grows with the load by itself.",
            (
                Query(
                    f"{_rate('foldserve_batch_size_sum', 'model')}"
                    f" / {_rate('foldserve_batch_size_count', 'model')}",
                    "{{model}}",
                ),
            ),
        ),
        Panel(
            "Batches",
            "ops",
            "Batches a second.",
            (Query(_rate("foldserve_batches_total", "model"), "{{model}}"),),
        ),
    ),
    "Models": (
        Panel(
            "Serving versions",
            "short",
            "Instances that serve each version; two lines at once during a rollout.",
            (
                Query(
                    'count by (model, version, precision) (foldserve_model_info{model=~"$model"})',
                    "{{model}} {{version}} {{precision}}",
                ),
            ),
        ),
        Panel(
            "Execution providers",
            "short",
            "Instances on each provider. A cpu beside a cuda is a fallback that nobody wanted.",
            (
                Query(
                    'count by (model, active) (foldserve_execution_provider_info{model=~"$model"})',
                    "{{model}} on {{active}}",
                ),
            ),
        ),
        Panel(
            "Loads",
            "short",
            "Loads of a version in the last hour, by their result.",
            (
                Query(
                    'sum by (model, result) (increase(foldserve_reloads_total{model=~"$model"}[1h]))',
                    "{{model}} {{result}}",
                ),
            ),
        ),
    ),
    "Drift": (
        Panel(
            "Distance from training",
            "short",
            f"Population stability index by feature: 0.1 is little, {DRIFT_LIMIT:g} raises an alert.",
            (
                Query(
                    'max by (model, version, feature) (foldserve_drift_psi{model=~"$model"})',
                    "{{model}} {{version}} {{feature}}",
                ),
            ),
        ),
        Panel(
            "Confidence",
            "percentunit",
            "Probability of the most probable label; its lower half falls first when images get strange.",
            tuple(
                Query(_quantile(q, "foldserve_confidence", "model"), f"{{{{model}}}} p{100 * q:g}")
                for q in (0.1, 0.5)
            ),
        ),
        Panel(
            "Predicted labels",
            "percentunit",
            "Share of each label among the predictions.",
            (
                Query(
                    f"{_rate('foldserve_predictions_total', 'model, label')} / ignoring (label) group_left "
                    f"{_rate('foldserve_predictions_total', 'model')}",
                    "{{model}} {{label}}",
                ),
            ),
            is_stacked=True,
        ),
    ),
}


def panels() -> tuple[Panel, ...]:
    """Every panel, in order."""
    return tuple(panel for row in ROWS.values() for panel in row)


def text() -> str:
    """The dashboard as Grafana reads it."""
    builder = (
        dashboard.Dashboard("Foldserve")
        .uid("foldserve")
        .description("Written by `python -m deploy.dashboard`; change that program, not this file.")
        .tags(["foldserve"])
        .editable()
        .refresh("10s")
        .time("now-30m", "now")
        .with_variable(dashboard.DatasourceVariable("source").label("Source").type("prometheus"))
        .with_variable(
            dashboard.QueryVariable("model")
            .label("Model")
            .datasource(_SOURCE)
            .query("label_values(foldserve_model_info, model)")
            .include_all(True)
            .all_value(".*")
            .multi(True)
            # Asked anew with every time range, or a model that came later would be in no panel.
            .refresh(VariableRefresh.ON_TIME_RANGE_CHANGED)
            .current(VariableOption(selected=True, text=["All"], value=["$__all"]))
        )
    )
    for title, row in ROWS.items():
        builder = builder.with_row(dashboard.Row(title))
        for panel in row:
            builder = builder.with_panel(_graph(panel))
    board = builder.build()
    for variable in board.templating.list_val or ():
        # Of another kind of variable; the library writes them for all.
        variable.auto = variable.auto_min = variable.auto_count = None
    return JSONEncoder(sort_keys=True, indent=2).encode(board) + "\n"


def _graph(panel: Panel) -> timeseries.Panel:
    graph = (
        timeseries.Panel()
        .title(panel.title)
        .description(panel.meaning)
        .unit(panel.unit)
        .datasource(_SOURCE)
        .span(_WIDTH)
        .height(_WIDTH)
        .min(0)
        .draw_style(GraphDrawStyle.LINE)
        .fill_opacity(30 if panel.is_stacked else 0)
        .legend(VizLegendOptions().show_legend(True).display_mode(LegendDisplayMode.LIST))
        .tooltip(VizTooltipOptions().mode(TooltipDisplayMode.MULTI).sort(SortOrder.DESCENDING))
    )
    if panel.is_stacked:
        graph = graph.stacking(StackingConfig().mode(StackingMode.NORMAL))
    for position, query in enumerate(panel.queries):
        graph = graph.with_target(
            prometheus.Dataquery()
            .expr(query.expr)
            .legend_format(query.legend)
            .ref_id(chr(ord("A") + position))
            .exemplar(panel.unit == "s")
        )
    return graph


if __name__ == "__main__":
    DASHBOARD_FILE.write_text(text(), encoding="utf-8")
    sys.stdout.write(f"{DASHBOARD_FILE}\n")
