"""A fault in the real service reaches a receiver as the alert meant for it, over real tools.

The rules are those of `deploy.alerting`, 300 times as fast.
"""

from __future__ import annotations

import json
import re
import shutil
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import httpx
import numpy as np
import pytest
import yaml

from deploy import alerting
from deploy.monitor import ALERTMANAGER_FILE, Addresses, monitoring
from loadtest import target
from tests.model_files import TinyModel, png, write_model
from tests.service.test_drift import World

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        not (shutil.which("prometheus") and shutil.which("prometheus-alertmanager")),
        reason="needs prometheus and prometheus-alertmanager",
    ),
]

SPEED = 300
TIMEOUT_S = 60.0
QUEUE = 64
# On a crowded machine these are true: a scrape or a timer that is late by a tenth of a second.
OF_THE_MACHINE = {"FoldserveDown", "FoldserveEventLoopLag"}


class Receiver(ThreadingHTTPServer):
    """Who is woken at night.

    Attributes:
        alerts: The names of those that came.
        resolved: Of those that were said to be over.
    """

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.alerts: set[str] = set()
        self.resolved: set[str] = set()


class _Handler(BaseHTTPRequestHandler):
    server: Receiver

    def do_POST(self) -> None:
        document = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        for alert in document["alerts"]:
            told = self.server.alerts if alert["status"] == "firing" else self.server.resolved
            told.add(alert["labels"]["alertname"])
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture
def receiver() -> Iterator[Receiver]:
    with Receiver() as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.01,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def faster(rules: str) -> str:
    """The rules with every duration shortened."""

    def shorten(match: re.Match[str]) -> str:
        seconds = int(match[2]) * {"m": 60, "h": 3600}[match[3]]
        return f"{match[1]}{seconds * 1000 // SPEED}ms"

    return re.sub(r"(\[|for: |offset )(\d+)([mh])\b", shorten, rules)


@dataclass(frozen=True)
class Watched:
    """A service whose engine can be spoilt, and its client."""

    client: httpx.Client
    fault: Path

    def predict(self, images: int = 1, picture: bytes = png(TinyModel.make().image(1))) -> int:
        """The status of one request."""
        files = [(f"image{number}", ("x.png", picture, "image/png")) for number in range(images)]
        return self.client.post("/predict", files=files).status_code


@contextmanager
def watched(folder: Path, receiver: Receiver, free_port: Callable[[], int]) -> Iterator[Watched]:
    """The service, watched and healthy."""
    write_model(
        folder / "models", reference=World(1, 3).reference().model_copy(update={"labels": (0.4, 0.3, 0.3)})
    )
    settings = yaml.safe_load(ALERTMANAGER_FILE.read_text())
    settings["route"] |= {"group_wait": "500ms", "group_interval": "1s"}
    url = f"http://127.0.0.1:{receiver.server_port}/"
    settings["receivers"] = [{"name": "page", "webhook_configs": [{"url": url}]}]
    (folder / "alertmanager.yaml").write_text(yaml.safe_dump(settings))
    (folder / "rules.yaml").write_text(faster(alerting.text()))
    addresses = Addresses(*(f"127.0.0.1:{free_port()}" for _ in range(3)))
    service, fault = f"http://{addresses.service}", folder / "fault"
    start = f"env FAULT_FILE={fault} {sys.executable} -m tests.deploy.faulty --repository {folder / 'models'}"
    limits = f"--workers 1 --threads 1 --max-queue-size {QUEUE} --default-deadline-ms 25000"
    with (
        target.running(service, f"{start} {limits} --reload-interval-s 0.2 --shutdown-grace-s 0"),
        monitoring(addresses, "200ms", folder / "rules.yaml", folder / "alertmanager.yaml"),
        httpx.Client(base_url=service, timeout=TIMEOUT_S) as client,
    ):
        yield Watched(client, fault)


def _until_told(receiver: Receiver, name: str, load: Callable[[], object]) -> set[str]:
    """Go on until the alert has come and any other had as much time again; what came."""
    began = time.monotonic()
    while name not in receiver.alerts:
        load()
        assert time.monotonic() < began + TIMEOUT_S, receiver.alerts
    ends = time.monotonic() + 1.0
    while time.monotonic() < ends:
        load()
    return receiver.alerts - OF_THE_MACHINE


@pytest.mark.parametrize(
    ("fault", "alert"), [("failing", "FoldserveAvailabilityBurnPage"), ("slow", "FoldserveLatencyBurnPage")]
)
def test_a_bad_engine_burns_its_own_budget_until_it_is_mended(
    fault: str, alert: str, tmp_path: Path, receiver: Receiver, unused_tcp_port_factory: Callable[[], int]
) -> None:
    with watched(tmp_path, receiver, unused_tcp_port_factory) as service:
        assert service.predict() == 200
        service.fault.write_text(fault)
        assert _until_told(receiver, alert, service.predict) == {alert}
        service.fault.unlink()
        ends = time.monotonic() + TIMEOUT_S
        while alert not in receiver.resolved:
            service.predict()
            assert time.monotonic() < ends, receiver.resolved


def test_a_version_that_is_refused_is_told(
    tmp_path: Path, receiver: Receiver, unused_tcp_port_factory: Callable[[], int]
) -> None:
    with watched(tmp_path, receiver, unused_tcp_port_factory) as service:
        write_model(tmp_path / "models", version="2", fault="wrong_logits")
        told = _until_told(receiver, "FoldserveReloadFailed", lambda: service.client.get("/livez"))
        assert told == {"FoldserveReloadFailed"}
        assert service.predict() == 200


def test_a_full_queue_is_told(
    tmp_path: Path, receiver: Receiver, unused_tcp_port_factory: Callable[[], int]
) -> None:
    with ThreadPoolExecutor(2) as clients, watched(tmp_path, receiver, unused_tcp_port_factory) as service:
        service.fault.write_text("hanging")
        with httpx.Client(base_url=service.client.base_url) as other:
            waiting = [clients.submit(service.predict)]
            while not service.fault.with_suffix(".hangs").exists():  # only then do the others wait for it
                other.get("/livez")
            waiting.append(clients.submit(service.predict, QUEUE - 1))
            told = _until_told(receiver, "FoldserveSaturated", lambda: other.get("/livez"))
        assert told == {"FoldserveSaturated"}
        assert not any(request.done() for request in waiting)


def test_other_pictures_than_in_training_are_told(
    tmp_path: Path, receiver: Receiver, unused_tcp_port_factory: Callable[[], int]
) -> None:
    black = png(np.zeros((8, 8, 1), np.uint8))
    with watched(tmp_path, receiver, unused_tcp_port_factory) as service:
        told = _until_told(receiver, "FoldserveDrift", lambda: service.predict(QUEUE, black))
        assert told == {"FoldserveDrift"}
