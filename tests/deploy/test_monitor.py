"""A real Prometheus scrapes the real service, and sees what its clients saw."""

from __future__ import annotations

import re
import shutil
import socket
import subprocess
import sys
import time
from bisect import bisect_left
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest

from deploy import alerting, dashboard
from deploy.monitor import Addresses, ToolMissing, lay_out, main, monitoring
from loadtest import target
from loadtest.measurement import percentile
from tests.model_files import TinyModel, png, write_model
from tests.service.api.collector import Collector, collecting
from tests.service.test_drift import World

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        not (shutil.which("prometheus") and shutil.which("prometheus-alertmanager")),
        reason="needs prometheus and prometheus-alertmanager",
    ),
]

REQUESTS = 60
CLIENTS = 4
TIMEOUT_S = 30.0


class Prometheus:
    """The query interface of a running Prometheus."""

    def __init__(self, client: httpx.Client) -> None:
        self._client = client

    def get(self, path: str, **parameters: str) -> Any:
        answer = self._client.get(path, params=parameters)
        answer.raise_for_status()
        return answer.json()["data"]

    def value(self, query: str) -> float | None:
        """The first value of an instant query; None: no series."""
        result = self.get("/query", query=query)["result"]
        return float(result[0]["value"][1]) if result else None

    def eventually(self, query: str, is_right: Callable[[float], bool]) -> float:
        deadline = time.monotonic() + TIMEOUT_S
        while True:
            value = self.value(query)
            if value is not None and is_right(value):
                return value
            assert time.monotonic() < deadline, f"{query} is {value}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def addresses(unused_tcp_port_factory: Callable[[], int]) -> Addresses:
    return Addresses(*(f"127.0.0.1:{unused_tcp_port_factory()}" for _ in range(3)))


@pytest.fixture(scope="module")
def collector() -> Iterator[Collector]:
    with collecting() as running:
        yield running


@pytest.fixture(scope="module")
def latencies_s(
    addresses: Addresses, collector: Collector, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[list[float]]:
    """What several clients at once measured; the engine takes so long that their own time is nothing."""
    folder = tmp_path_factory.mktemp("monitored")
    write_model(folder / "models", reference=World(1, 3).reference())
    (folder / "fault").write_text("steady")
    url = f"http://{addresses.service}"
    start = (
        f"env FAULT_FILE={folder / 'fault'} {sys.executable} -m tests.deploy.faulty --workers 1 --threads 1"
    )
    flags = f"--repository {folder / 'models'} --otlp-endpoint {collector.endpoint}"
    with (
        target.running(url, f"{start} {flags}"),
        monitoring(addresses, "1s"),
        httpx.Client(base_url=url, timeout=TIMEOUT_S) as client,
        ThreadPoolExecutor(CLIENTS) as clients,
    ):
        yield list(clients.map(_latency_s, [client] * REQUESTS))


def _latency_s(client: httpx.Client) -> float:
    picture = png(TinyModel.make().image(1))
    began = time.monotonic()
    answer = client.post("/predict", content=picture, headers={"Content-Type": "image/png"})
    answer.raise_for_status()
    return time.monotonic() - began


@pytest.fixture(scope="module")
def prometheus(addresses: Addresses, latencies_s: list[float]) -> Iterator[Prometheus]:
    with httpx.Client(base_url=f"http://{addresses.prometheus}/api/v1", timeout=TIMEOUT_S) as client:
        yield Prometheus(client)


def test_every_request_arrives_in_prometheus(prometheus: Prometheus) -> None:
    prometheus.eventually('foldserve_requests_total{route="/predict",code="200"}', lambda v: v == REQUESTS)
    assert prometheus.value('up{job="foldserve"}') == 1
    assert prometheus.value("foldserve_ready") == 1


def test_its_quantiles_agree_with_the_clients(prometheus: Prometheus, latencies_s: list[float]) -> None:
    """Within a bucket."""
    series = 'foldserve_request_duration_seconds_bucket{route="/predict"}'
    prometheus.eventually(f'{series[:-1]},le="+Inf"}}', lambda v: v == REQUESTS)
    buckets = prometheus.get("/query", query=series)["result"]
    edges = sorted(float(entry["metric"]["le"]) for entry in buckets)
    for p in (50.0, 90.0):
        seen = prometheus.eventually(f"histogram_quantile({p / 100}, {series})", lambda v: v > 0)
        measured = percentile(sorted(latencies_s), p)
        assert abs(bisect_left(edges, seen) - bisect_left(edges, measured)) <= 1


def test_its_exemplars_lead_to_traces(prometheus: Prometheus, collector: Collector) -> None:
    """From a bucket of slow requests to one of them."""
    window = {"start": str(time.time() - 600), "end": str(time.time() + 600)}
    deadline = time.monotonic() + TIMEOUT_S
    shown: set[str] = set()
    traced: set[str] = set()
    while not shown or not shown <= traced:
        assert time.monotonic() < deadline, (shown, traced)
        time.sleep(0.1)
        found = prometheus.get(
            "/query_exemplars", query="foldserve_request_duration_seconds_bucket", **window
        )
        shown = {each["labels"]["trace_id"] for series in found for each in series["exemplars"]}
        traced = {span.trace_id.hex() for span in collector.named("POST /predict")}


@pytest.fixture(scope="module")
def mixed_traffic(addresses: Addresses, latencies_s: list[float]) -> None:
    """A picture that is none, a client that leaves, and pictures enough to speak of drift."""
    host, port = addresses.service.split(":")
    with socket.create_connection((host, int(port))) as leaving:
        leaving.sendall(b"POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: 9\r\n\r\nhalf")
    picture = png(TinyModel.make().image(1))
    files = [(f"image{number}", ("x.png", picture, "image/png")) for number in range(64)]
    with httpx.Client(base_url=f"http://{addresses.service}", timeout=TIMEOUT_S) as client:
        assert client.post("/predict", content=b"no picture").status_code == 422
        while "foldserve_drift_psi{" not in client.get("/metrics").text:
            client.post("/predict", files=files).raise_for_status()


QUERIES = [query for panel in dashboard.panels() if not panel.needs_gpu for query in panel.queries]


@pytest.mark.parametrize("query", QUERIES, ids=lambda query: query.expr)
def test_every_query_of_the_dashboard_shows_something(
    query: dashboard.Query, prometheus: Prometheus, mixed_traffic: None
) -> None:
    expression = query.expr.replace("$__rate_interval", "1m").replace("$model", ".*")
    prometheus.eventually(f"count({expression})", lambda v: v >= 1)
    labels = prometheus.get("/query", query=expression)["result"][0]["metric"]
    assert set(re.findall(r"{{(\w+)}}", query.legend)) <= set(labels)


def test_every_metric_of_the_rules_is_there(prometheus: Prometheus, mixed_traffic: None) -> None:
    expressions = [rule["expr"] for group in alerting.document()["groups"] for rule in group["rules"]]
    for name in sorted(set(re.findall(r"\bfoldserve_\w+", " ".join(expressions)))):
        prometheus.eventually(f"count({name})", lambda v: v >= 1)


def test_every_rule_is_evaluated_without_a_fault(prometheus: Prometheus) -> None:
    prometheus.eventually("count(foldserve:latency_bad:ratio_rate5m)", lambda v: v == 1)
    rules = [rule for group in prometheus.get("/rules")["groups"] for rule in group["rules"]]
    assert len(rules) >= 18
    assert {rule["name"]: rule.get("lastError") for rule in rules if rule["health"] != "ok"} == {}
    assert [rule["name"] for rule in rules if rule.get("state") == "firing"] == []


def test_it_alerts_where_alertmanager_listens(prometheus: Prometheus, addresses: Addresses) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not (active := prometheus.get("/alertmanagers")["activeAlertmanagers"]):
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert [manager["url"] for manager in active] == [f"http://{addresses.alertmanager}/api/v2/alerts"]


def test_a_taken_address_is_told(addresses: Addresses, latencies_s: list[float]) -> None:
    with pytest.raises(ToolMissing, match=r"answers at .* already"), monitoring(addresses):
        pass


def test_a_tool_that_cannot_start_says_why(addresses: Addresses, unused_tcp_port: int) -> None:
    elsewhere = Addresses("127.0.0.1:1", "no-such-host.invalid:1", f"127.0.0.1:{unused_tcp_port}")
    with pytest.raises(ToolMissing, match=r"(?s)did not get ready.*no-such-host"), monitoring(elsewhere):
        pass


@pytest.mark.parametrize("ended", ["/prometheus --config", "-m service"])
def test_what_ends_by_itself_ends_all_and_is_told(
    ended: str, tmp_path: Path, unused_tcp_port_factory: Callable[[], int]
) -> None:
    write_model(tmp_path)
    ports = [str(unused_tcp_port_factory()) for _ in range(3)]
    command = [sys.executable, "-m", "deploy.monitor", "--host", f"http://127.0.0.1:{ports[0]}"]
    command += ["--start", f"{sys.executable} -m service --workers 1 --repository {tmp_path}"]
    command += ["--prometheus", f"127.0.0.1:{ports[1]}", "--alertmanager", f"127.0.0.1:{ports[2]}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as monitor:  # noqa: S603 - our own program
        assert monitor.stdout is not None
        while "Ctrl-C" not in monitor.stdout.readline():
            assert monitor.poll() is None
        children = psutil.Process(monitor.pid).children()
        next(child for child in children if ended in " ".join(child.cmdline())).terminate()
        _, said = monitor.communicate(timeout=TIMEOUT_S)
    assert monitor.returncode == 1
    assert re.search(rf"monitor: .*{ended}.* ended with status", said), said
    assert not any(child.is_running() for child in children)


def test_nothing_to_monitor_is_told(capsys: pytest.CaptureFixture[str], unused_tcp_port: int) -> None:
    assert main(["--host", f"http://127.0.0.1:{unused_tcp_port}"]) == 1
    assert "no service is ready" in capsys.readouterr().err


def test_the_interval_reaches_the_settings(tmp_path: Path) -> None:
    config = lay_out(tmp_path, Addresses("a:1", "b:2", "c:3"), "250ms")
    assert config.read_text().count("250ms") == 2
    assert '"c:3"' in (tmp_path / "alertmanagers" / "local.json").read_text()
