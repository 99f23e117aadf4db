"""The dashboard: what the program writes, and nothing that the service does not have."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from grafana_foundation_sdk.models.dashboard import VariableRefresh

from deploy import dashboard

ROOT = Path(dashboard.__file__).parents[1]
GRAFANA = ROOT / "deploy" / "grafana"


def test_the_file_is_what_the_program_writes() -> None:
    assert dashboard.DASHBOARD_FILE.read_text(encoding="utf-8") == dashboard.text()


def test_every_metric_of_it_is_documented() -> None:
    documented = set(re.findall(r"`(foldserve_\w+)`", (ROOT / "docs" / "metrics.md").read_text()))
    used = set(re.findall(r"\bfoldserve_\w+", dashboard.text()))
    assert {re.sub(r"_(bucket|count|sum)$", "", name) for name in used} <= documented
    assert len(used) > 15


def test_every_panel_has_its_place_and_its_meaning() -> None:
    panels = json.loads(dashboard.text())["panels"]
    places = {tuple(panel["gridPos"][side] for side in "xy") for panel in panels}
    assert len(places) == len(panels) == len(dashboard.ROWS) + len(dashboard.panels())
    for panel in panels:
        assert panel["type"] == "row" or len(panel["description"]) > 15


def test_what_grafana_would_choose_by_itself_is_stated() -> None:
    """Else the list of models stays empty, and every panel that asks for one with it."""
    board = json.loads(dashboard.text())
    model = next(variable for variable in board["templating"]["list"] if variable["name"] == "model")
    assert model["refresh"] == VariableRefresh.ON_TIME_RANGE_CHANGED
    assert model["current"]["value"] == ["$__all"]
    for panel in board["panels"]:
        if panel["type"] != "row":
            assert panel["options"]["legend"]["showLegend"]
            assert panel["options"]["tooltip"]["mode"] == "multi"


def _compose() -> Any:
    return yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())


def test_compose_mounts_what_is_there() -> None:
    services = _compose()["services"]
    assert set(services) == {"foldserve", "prometheus", "alertmanager", "grafana"}
    sources = [mount.split(":")[0] for service in services.values() for mount in service.get("volumes", ())]
    ours = [source for source in sources if source.startswith("./")]
    assert len(ours) == 4
    assert all((ROOT / "deploy" / source).is_dir() for source in ours)
    assert all(":" in service["image"] for service in services.values())


@pytest.mark.parametrize("kind", ["targets", "alertmanagers"])
def test_compose_is_what_prometheus_looks_for(kind: str) -> None:
    (group,) = json.loads((ROOT / "deploy" / "prometheus" / kind / "compose.json").read_text())
    (address,) = group["targets"]
    name, port = address.split(":")
    published = [mapping.split(":")[-1] for mapping in _compose()["services"][name]["ports"]]
    assert port in published


def test_grafana_finds_the_dashboard_and_its_source() -> None:
    (source,) = yaml.safe_load((GRAFANA / "provisioning/datasources/prometheus.yaml").read_text())[
        "datasources"
    ]
    assert source["type"] == "prometheus"
    assert source["url"] == "http://prometheus:9090"
    (provider,) = yaml.safe_load((GRAFANA / "provisioning/dashboards/foldserve.yaml").read_text())[
        "providers"
    ]
    mounts = dict(mount.split(":")[:2] for mount in _compose()["services"]["grafana"]["volumes"])
    assert mounts["./grafana/dashboards"] == provider["options"]["path"]
