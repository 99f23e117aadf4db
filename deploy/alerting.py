"""Recording rules and alerts for Prometheus, and what to do about each.

``deploy/prometheus/rules.yaml`` and ``docs/runbook.md`` are written by this file.

::

    objective         bad requests, as a share of all        budget
    availability      answered with 5xx                      0.1 %
    latency           slower than 100 ms                     1 %

An alert on an objective fires when its budget burns too fast over a long and a short window at once:
the long one keeps a single bad minute from waking anybody, the short one ends the alert when the cause
is gone.

Source: Beyer et al., The Site Reliability Workbook, 2018, chapter 5, "multiwindow, multi-burn-rate alerts".
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

import yaml

RULES_FILE = Path(__file__).with_name("prometheus") / "rules.yaml"
RUNBOOK_FILE = Path(__file__).parents[1] / "docs" / "runbook.md"
LATENCY_OBJECTIVE_S = 0.1  # an edge of the duration buckets, or the share would be a guess
# Every route that predicts, in any protocol; gRPC's methods are routes too.
PREDICTIONS = 'route=~"/predict|/v2/.+/infer|/v1/.+:predict|/.+/ModelInfer"'
DRIFT_LIMIT = 0.25  # of the population stability index: by convention a change that matters
_RUNBOOK_HEAD = (
    "# Runbook",
    "",
    "Every alert of `deploy/prometheus/rules.yaml`: how urgent it is, what it says, where to look first.",
    "A page wakes somebody, a ticket waits for the morning. Made by `python -m deploy.alerting`.",
    "",
)
_HEADER = "# Written by `python -m deploy.alerting`; change that program, not this file.\n"


@dataclass(frozen=True, slots=True)
class Burn:
    """How fast a budget may burn before somebody is told.

    Attributes:
        factor: Times the rate at which the budget would just last for 30 days.
        windows: Long and short, as Prometheus writes durations.
    """

    severity: str
    factor: float
    windows: tuple[str, str]


# 2 % of the month's budget in an hour; 5 % in six hours.
BURNS = (Burn("page", 14.4, ("1h", "5m")), Burn("ticket", 6.0, ("6h", "30m")))


@dataclass(frozen=True, slots=True)
class Objective:
    """A promise to users.

    Attributes:
        bad_ratio: PromQL for the share of bad ones among the PREDICTIONS over WINDOW; LIMIT: what is slow.
        budget: The share that may be bad.
        remedy: Where to look first.
    """

    name: str
    bad_ratio: str
    budget: float
    remedy: str

    def expression(self, window: str) -> str:
        """PromQL for the share of bad requests over one window."""
        terms = {"WINDOW": window, "LIMIT": str(LATENCY_OBJECTIVE_S), "PREDICTIONS": PREDICTIONS}
        return re.sub("|".join(terms), lambda match: terms[match[0]], self.bad_ratio)

    def series(self, window: str) -> str:
        """The recorded series of one window."""
        return f"foldserve:{self.name}_bad:ratio_rate{window}"


OBJECTIVES = (
    Objective(
        "availability",
        'sum(rate(foldserve_requests_total{PREDICTIONS,code=~"5.."}[WINDOW]))'
        " / sum(rate(foldserve_requests_total{PREDICTIONS}[WINDOW]))",
        0.001,
        "foldserve_rejected_total by reason says why. overloaded: more replicas. inference_failed: the log "
        "has the cause. not_ready: look at foldserve_reloads_total.",
    ),
    Objective(
        "latency",
        '1 - sum(rate(foldserve_request_duration_seconds_bucket{PREDICTIONS,le="LIMIT"}[WINDOW]))'
        " / sum(rate(foldserve_request_duration_seconds_count{PREDICTIONS}[WINDOW]))",
        0.01,
        "foldserve_stage_duration_seconds says where the time goes. queue: too much load for the engine. "
        "decode: large pictures. receive: slow clients.",
    ),
)


def document() -> dict[str, Any]:
    """The rules as Prometheus reads them."""
    return {
        "groups": [
            {"name": "foldserve_objectives", "rules": [*_recordings(), *_burn_alerts()]},
            {"name": "foldserve_health", "rules": list(_health_alerts())},
        ]
    }


def text() -> str:
    """The rules file."""
    return _HEADER + yaml.safe_dump(document(), sort_keys=False, width=110, allow_unicode=True)


def runbook() -> str:
    """``docs/runbook.md``: every alert, what it means and where to look."""
    sections = [
        section
        for group in document()["groups"]
        for rule in group["rules"]
        if "alert" in rule
        for section in _section(rule)
    ]
    return "\n".join([*_RUNBOOK_HEAD, *sections])


def _section(rule: Mapping[str, Any]) -> Iterator[str]:
    labels, notes = rule["labels"], rule["annotations"]
    wait = "" if rule["for"] == "0m" else f", after {rule['for']}"
    yield from (
        f"## {rule['alert']}",
        "",
        f"{labels['severity'].capitalize()}{wait}. {_plain(notes['summary'])}",
    )
    yield from ("", notes["runbook"], "", "```promql", rule["expr"], "```", "")


def _plain(summary: str) -> str:
    """A summary for no alert in particular: the names of its labels in the place of their values."""
    return re.sub(r"\{\{ \$(?:labels\.)?(\w+)[^}]*\}\}", r"*\1*", summary)


def _recordings() -> Iterator[dict[str, str]]:
    for objective in OBJECTIVES:
        for window in (window for burn in BURNS for window in burn.windows):
            yield {"record": objective.series(window), "expr": objective.expression(window)}


def _burn_alerts() -> Iterator[dict[str, Any]]:
    for objective in OBJECTIVES:
        for burn in BURNS:
            bound = f"{burn.factor * objective.budget:.4g}"
            yield _alert(
                f"Foldserve{objective.name.capitalize()}Burn{burn.severity.capitalize()}",
                " and ".join(f"{objective.series(window)} > {bound}" for window in burn.windows),
                burn.severity,
                f"The {objective.name} budget burns {burn.factor:g} times too fast.",
                objective.remedy,
                labels={"objective": objective.name},
            )


_REFUSED = 'foldserve_reloads_total{result!="success"}'


def _health_alerts() -> Iterator[dict[str, Any]]:
    yield _alert(
        "FoldserveDown",
        'up{job="foldserve"} == 0',
        "page",
        "{{ $labels.instance }} does not answer.",
        "Is the process there? Its last log line says why it ended. Prometheus must reach its port.",
        "1m",
    )
    yield _alert(
        "FoldserveUnknown",
        'absent(up{job="foldserve"})',
        "page",
        "Prometheus knows no instance of the service.",
        "Are there any? Else the discovery finds none: the scrape job must be called foldserve.",
        "5m",
    )
    yield _alert(
        "FoldserveNotReady",
        "foldserve_ready == 0",
        "page",
        "{{ $labels.instance }} cannot predict.",
        "GET /readyz names the reason. After a rollout: the self-test of the new version failed.",
        "2m",
    )
    yield _alert(
        "FoldserveReloadFailed",
        # The first one of a new instance or model grows from nothing, which is no increase.
        f"increase({_REFUSED}[15m]) > 0 or ({_REFUSED} > 0 unless {_REFUSED} offset 15m)",
        "ticket",
        "A version of {{ $labels.model }} was refused: {{ $labels.result }}.",
        "The old version still serves. The log names the file and the remedy; export the version again.",
    )
    yield _alert(
        "FoldserveCpuFallback",
        "foldserve_cpu_fallback == 1",
        "ticket",
        "{{ $labels.instance }} has a GPU, and runs {{ $labels.model }} on the CPU.",
        "The log says at start why CUDA could not be used, and `python -m service doctor` says it again. "
        "execution_provider=cuda makes that an error, execution_provider=cpu says that it is meant.",
        "5m",
    )
    yield _alert(
        "FoldserveCpuBesideGpu",
        'foldserve_execution_provider_info{requested="auto",active="cpu"} == 1'
        ' and on (model) count by (model) (foldserve_execution_provider_info{active!="cpu"}) > 0',
        "ticket",
        "{{ $labels.instance }} runs {{ $labels.model }} on the CPU while its siblings have a GPU.",
        "It sees no driver: was it given a GPU, and does its node have one? "
        "execution_provider=cuda makes that an error.",
        "5m",
    )
    yield _alert(
        "FoldserveSaturated",
        "foldserve_queue_depth / foldserve_queue_capacity > 0.8",
        "ticket",
        "The queue of {{ $labels.model }} is {{ $value | humanizePercentage }} full.",
        "More replicas, or a smaller default_deadline_ms so that late work is refused earlier.",
        "5m",
    )
    yield _alert(
        "FoldserveEventLoopLag",
        "histogram_quantile(0.99, "
        "sum by (le, instance) (rate(foldserve_event_loop_lag_seconds_bucket[5m]))) > 0.1",
        "ticket",
        "The event loop of {{ $labels.instance }} is late by {{ $value | humanizeDuration }}.",
        "The process gets too little CPU: look for throttling by the cgroup, or neighbours on the node.",
        "5m",
    )
    yield _alert(
        "FoldserveDrift",
        f"max by (model, version, feature) (foldserve_drift_psi) > {DRIFT_LIMIT}",
        "ticket",
        "What {{ $labels.model }} {{ $labels.version }} meets is no longer what it was trained on: "
        "{{ $labels.feature }} has moved by {{ $value | humanize }}.",
        "mean, contrast, size: a client changed its camera, its encoder or its resizing; look at some of its "
        "images. confidence, label alone: the world changed, or the model does worse than in training. "
        "Measure it on fresh labelled images, then train on them.",
        "10m",
    )


def _alert(
    name: str,
    expr: str,
    severity: str,
    summary: str,
    runbook: str,
    wait: str = "0m",
    labels: Mapping[str, str] = MappingProxyType({}),
) -> dict[str, Any]:
    return {
        "alert": name,
        "expr": expr,
        "for": wait,
        "labels": {"severity": severity, **labels},
        "annotations": {"summary": summary, "runbook": runbook},
    }


if __name__ == "__main__":
    for path, content in ((RULES_FILE, text()), (RUNBOOK_FILE, runbook())):
        path.write_text(content, encoding="utf-8")
        sys.stdout.write(f"{path}\n")
