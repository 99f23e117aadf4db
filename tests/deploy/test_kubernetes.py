"""The Kubernetes manifests: of the schema, and true to the service that they run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

import deploy
from service.metrics import metrics_reference
from service.settings import ENV_PREFIX, Settings

FOLDER = Path(deploy.__file__).parent / "kubernetes"
NAMES = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())["resources"]


def _read(name: str) -> Any:
    return yaml.safe_load((FOLDER / name).read_text())


POD = _read("deployment.yaml")["spec"]["template"]
(CONTAINER,) = POD["spec"]["containers"]
SETTINGS = {each["name"].removeprefix(ENV_PREFIX).lower(): each["value"] for each in CONTAINER["env"]}


def test_every_manifest_is_listed() -> None:
    assert {*NAMES, "kustomization.yaml"} == {path.name for path in FOLDER.iterdir()}


@pytest.mark.parametrize("name", NAMES)
def test_every_manifest_keeps_the_schema(name: str) -> None:
    kubernetes_validate.validate(_read(name), "1.34", strict=True)


def test_its_settings_are_settings_and_fit_its_patience() -> None:
    settings = Settings.model_validate(SETTINGS)
    patience_s = POD["spec"]["terminationGracePeriodSeconds"]
    assert patience_s > settings.shutdown_delay_s + settings.shutdown_grace_s
    readiness = CONTAINER["readinessProbe"]
    assert readiness["periodSeconds"] * readiness["failureThreshold"] < settings.shutdown_delay_s


def test_it_is_asked_where_it_listens() -> None:
    (port,) = CONTAINER["ports"]
    assert port["containerPort"] == Settings().port
    assert POD["metadata"]["annotations"]["prometheus.io/port"] == str(port["containerPort"])
    assert _read("service.yaml")["spec"]["ports"][0]["targetPort"] == port["name"]
    probes = {name: CONTAINER[f"{name}Probe"]["httpGet"] for name in ("startup", "liveness", "readiness")}
    assert all(probe["port"] == port["name"] for probe in probes.values())
    assert {name: probe["path"] for name, probe in probes.items()} == {
        "startup": "/readyz",
        "liveness": "/livez",
        "readiness": "/readyz",
    }


def test_everything_selects_its_pods() -> None:
    labels = POD["metadata"]["labels"]
    assert _read("deployment.yaml")["spec"]["selector"]["matchLabels"] == labels
    assert _read("service.yaml")["spec"]["selector"] == labels
    assert _read("disruption.yaml")["spec"]["selector"]["matchLabels"] == labels


def test_it_scales_by_a_metric_of_the_service() -> None:
    (metric,) = _read("autoscaler.yaml")["spec"]["metrics"]
    assert f"| `{metric['pods']['metric']['name']}` | gauge |" in metrics_reference()


def test_it_may_write_nothing_and_become_nobody() -> None:
    assert POD["spec"]["securityContext"]["runAsNonRoot"]
    security = CONTAINER["securityContext"]
    assert security["readOnlyRootFilesystem"]
    assert not security["allowPrivilegeEscalation"]
    assert security["capabilities"]["drop"] == ["ALL"]
    assert all(mount["readOnly"] for mount in CONTAINER["volumeMounts"])
