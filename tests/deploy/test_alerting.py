"""Each alert fires in its own scenario, and none in a healthy hour. Judged by Prometheus's own `promtool`."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from deploy import alerting

DEPLOY = Path(alerting.__file__).parent
needs_promtool = pytest.mark.skipif(shutil.which("promtool") is None, reason="needs promtool")
ALERTS = {
    rule["alert"]: rule
    for group in alerting.document()["groups"]
    for rule in group["rules"]
    if "alert" in rule
}

_REQUESTS = 'foldserve_requests_total{route="/predict",method="POST",code="%s"}'
_BUCKET = 'foldserve_request_duration_seconds_bucket{route="/predict",le="%s"}'
_COUNT = 'foldserve_request_duration_seconds_count{route="/predict"}'
_REFUSED = 'foldserve_reloads_total{model="m",result="selftest_failed"}'
_FALLBACK = 'foldserve_cpu_fallback{model="m",instance="a"}'
_PROVIDER = 'foldserve_execution_provider_info{model="m",requested="auto",active="%s",instance="%s"}'
_LAG = 'foldserve_event_loop_lag_seconds_bucket{instance="a",le="%s"}'
_DRIFT = 'foldserve_drift_psi{model="m",version="1",feature="contrast"}'
_INSTANCE = 'job="foldserve",instance="a"'

# A working day of one sample a minute: 1,000 requests a minute, all good, and nothing else wrong.
HEALTHY: Mapping[str, str] = {
    _REQUESTS % 200: "0+1000x400",
    _REQUESTS % 503: "0+0x400",
    _BUCKET % 0.1: "0+1000x400",
    _COUNT: "0+1000x400",
    f"up{{{_INSTANCE}}}": "1x400",
    f"foldserve_ready{{{_INSTANCE}}}": "1x400",
    _REFUSED: "0x400",
    _FALLBACK: "0x400",
    _PROVIDER % ("cpu", "a"): "1x400",
    'foldserve_queue_depth{model="m"}': "3x400",
    'foldserve_queue_capacity{model="m"}': "1024x400",
    _LAG % 0.01: "0+240x400",
    _LAG % 1: "0+240x400",
    _LAG % "+Inf": "0+240x400",
    _DRIFT: "0.05x400",
}

# What is different when one thing is wrong; the fast burns set off the slow ones as well.
SCENARIOS: Mapping[str, tuple[Mapping[str, str], set[str]]] = {
    "FoldserveAvailabilityBurnPage": ({_REQUESTS % 503: "0+20x400"}, {"FoldserveAvailabilityBurnTicket"}),
    "FoldserveAvailabilityBurnTicket": ({_REQUESTS % 503: "0+8x400"}, set()),
    "FoldserveLatencyBurnPage": ({_BUCKET % 0.1: "0+800x400"}, {"FoldserveLatencyBurnTicket"}),
    "FoldserveLatencyBurnTicket": ({_BUCKET % 0.1: "0+920x400"}, set()),
    "FoldserveDown": ({f"up{{{_INSTANCE}}}": "0x400"}, set()),
    "FoldserveNotReady": ({f"foldserve_ready{{{_INSTANCE}}}": "0x400"}, set()),
    "FoldserveUnknown": ({f"up{{{_INSTANCE}}}": "_x400"}, set()),
    "FoldserveReloadFailed": ({_REFUSED: "0x390 1x10"}, set()),
    "FoldserveCpuFallback": ({_FALLBACK: "1x400"}, set()),
    "FoldserveCpuBesideGpu": ({_PROVIDER % ("cuda", "b"): "1x400"}, set()),
    "FoldserveSaturated": ({'foldserve_queue_depth{model="m"}': "900x400"}, set()),
    "FoldserveEventLoopLag": ({_LAG % 0.01: "0x400"}, set()),
    "FoldserveDrift": ({_DRIFT: "0.4x400"}, set()),
}


def _firing(series: Mapping[str, str], folder: Path) -> set[str]:
    """The alerts that fire at its end, as promtool sees them."""
    tests = {
        "rule_files": [str(alerting.RULES_FILE)],
        "evaluation_interval": "5m",
        "tests": [
            {
                "interval": "1m",
                "input_series": [{"series": name, "values": values} for name, values in series.items()],
                "alert_rule_test": [
                    {"eval_time": "400m", "alertname": name, "exp_alerts": []} for name in ALERTS
                ],
            }
        ],
    }
    file = folder / "tests.yaml"
    file.write_text(yaml.safe_dump(tests))
    done = subprocess.run(  # noqa: S603
        ["promtool", "test", "rules", str(file)],  # noqa: S607
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    printed = done.stdout + done.stderr
    firing = set(re.findall(r"alertname:\s*(\w+)", printed))
    assert (done.returncode == 0) == (not firing), printed
    return firing


@needs_promtool
def test_a_healthy_day_wakes_nobody(tmp_path: Path) -> None:
    assert _firing(HEALTHY, tmp_path) == set()


@needs_promtool
@pytest.mark.parametrize("name", ALERTS)
def test_each_alert_fires_for_its_own_fault_alone(name: str, tmp_path: Path) -> None:
    fault, consequences = SCENARIOS[name]
    assert _firing({**HEALTHY, **fault}, tmp_path) == {name} | consequences


@needs_promtool
@pytest.mark.parametrize(
    ("refused", "firing"),
    [
        ("_x390 1x10", {"FoldserveReloadFailed"}),
        ("_x300 1x100", set()),
        ("1x400", set()),
        ("1x390 2x10", {"FoldserveReloadFailed"}),
    ],
    ids=["the first of a new model", "an hour ago", "long known", "another one"],
)
def test_a_refusal_is_told_once_and_never_missed(refused: str, firing: set[str], tmp_path: Path) -> None:
    assert _firing({**HEALTHY, _REFUSED: refused}, tmp_path) == firing


def test_the_objectives_count_what_predicts_and_nothing_else() -> None:
    routes = json.loads((DEPLOY.parent / "docs" / "openapi.json").read_text())["paths"]
    name, _, pattern = alerting.PREDICTIONS.partition("=~")
    counted = {route for route in routes if re.fullmatch(pattern.strip('"'), route)}
    assert name == "route"
    assert counted == {route for route in routes if route.endswith(("/predict", "/infer", ":predict"))}
    assert re.fullmatch(pattern.strip('"'), "/inference.GRPCInferenceService/ModelInfer")
    assert not re.fullmatch(pattern.strip('"'), "/inference.GRPCInferenceService/ModelReady")


@needs_promtool
@pytest.mark.parametrize(
    "command",
    [
        ("promtool", "check", "rules", "prometheus/rules.yaml"),
        ("promtool", "check", "config", "prometheus/prometheus.yaml"),
        ("amtool", "check-config", "alertmanager/alertmanager.yaml"),
    ],
    ids=lambda command: command[-1],
)
def test_the_tools_accept_the_files(command: tuple[str, ...]) -> None:
    done = subprocess.run(command, cwd=DEPLOY, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    assert done.returncode == 0, done.stdout + done.stderr


def test_the_files_are_what_the_program_writes() -> None:
    assert alerting.RULES_FILE.read_text(encoding="utf-8") == alerting.text()
    assert alerting.RUNBOOK_FILE.read_text(encoding="utf-8") == alerting.runbook()


def test_every_metric_of_the_rules_is_documented() -> None:
    documented = set(re.findall(r"`(foldserve_\w+)`", (DEPLOY.parent / "docs" / "metrics.md").read_text()))
    expressions = [rule["expr"] for group in alerting.document()["groups"] for rule in group["rules"]]
    used = set(re.findall(r"\bfoldserve_\w+", " ".join(expressions)))
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in used} <= documented


def test_the_latency_objective_is_an_edge_of_the_buckets() -> None:
    """Between two edges the share of slow requests would be a guess."""
    buckets = re.search(
        r"Buckets of durations: ([0-9., ]+) s", (DEPLOY.parent / "docs" / "metrics.md").read_text()
    )
    assert buckets is not None
    assert alerting.LATENCY_OBJECTIVE_S in [float(edge) for edge in buckets[1].split(",")]


@pytest.mark.parametrize("name", ALERTS)
def test_every_alert_says_what_happened_and_what_to_do(name: str) -> None:
    rule: Any = ALERTS[name]
    assert rule["labels"]["severity"] in {"page", "ticket"}
    assert len(rule["annotations"]["summary"]) > 20
    assert len(rule["annotations"]["runbook"]) > 40
