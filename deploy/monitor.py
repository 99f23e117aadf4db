"""``make monitor``: the service, Prometheus and Alertmanager together, until Ctrl-C.

::

    service :8000 ◀─ scrapes ─ Prometheus :9090 ─ alerts ─▶ Alertmanager :9093

The rules and settings are those of `deploy/prometheus` and `deploy/alertmanager`; only the addresses
are made here. Data stays in a temporary folder: a look at what runs now, no monitoring for production.
"""

from __future__ import annotations

import argparse
import contextlib
import http.client
import json
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeAlias
from urllib.parse import urlsplit

from deploy.alerting import RULES_FILE
from loadtest import target

DEPLOY = Path(__file__).parent
ALERTMANAGER_FILE = DEPLOY / "alertmanager" / "alertmanager.yaml"
READY_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 10.0
_POLL_S = 0.05
_WATCH_S = 0.5
Process: TypeAlias = subprocess.Popen[bytes]


class ToolMissing(Exception):
    """Prometheus or Alertmanager is not installed, did not start, or did not go on."""


@dataclass(frozen=True, slots=True)
class Addresses:
    """Where everything listens, as ``host:port``."""

    service: str
    prometheus: str
    alertmanager: str


@contextlib.contextmanager
def monitoring(
    addresses: Addresses,
    scrape_interval: str = "5s",
    rules: Path = RULES_FILE,
    alertmanager: Path = ALERTMANAGER_FILE,
) -> Iterator[tuple[Process, Process]]:
    """Alertmanager and Prometheus, ready, for the length of the block.

    Args:
        addresses: Where they listen, and what they watch.
        scrape_interval: Of Prometheus; rules are evaluated as often.
        rules: Of Prometheus.
        alertmanager: Its settings.

    Raises:
        ToolMissing: One is not installed or did not start.
    """
    with tempfile.TemporaryDirectory(prefix="foldserve-monitor-") as name:
        folder = Path(name)
        config = lay_out(folder, addresses, scrape_interval, rules)
        with (
            _running(
                (
                    _program("prometheus-alertmanager", "alertmanager"),
                    f"--config.file={alertmanager}",
                    f"--storage.path={folder / 'alertmanager'}",
                    f"--web.listen-address={addresses.alertmanager}",
                    "--cluster.listen-address=",
                ),
                addresses.alertmanager,
            ) as alertmanager_process,
            _running(
                (
                    _program("prometheus"),
                    f"--config.file={config}",
                    f"--storage.tsdb.path={folder / 'prometheus'}",
                    f"--web.listen-address={addresses.prometheus}",
                    "--enable-feature=exemplar-storage",
                ),
                addresses.prometheus,
            ) as prometheus_process,
        ):
            yield alertmanager_process, prometheus_process


def lay_out(folder: Path, addresses: Addresses, scrape_interval: str, rules: Path = RULES_FILE) -> Path:
    """Prometheus's settings with the addresses to scrape and to alert; the path of its main file."""
    for kind, address in (("targets", addresses.service), ("alertmanagers", addresses.alertmanager)):
        (folder / kind).mkdir()
        (folder / kind / "local.json").write_text(json.dumps([{"targets": [address]}]), encoding="utf-8")
    shutil.copy(rules, folder / "rules.yaml")
    text = (DEPLOY / "prometheus" / "prometheus.yaml").read_text(encoding="utf-8")
    config = folder / "prometheus.yaml"
    config.write_text(text.replace("_interval: 5s", f"_interval: {scrape_interval}"), encoding="utf-8")
    return config


def main(arguments: Sequence[str] | None = None) -> int:
    """Starts everything, prints the addresses, and waits.

    Returns:
        0 after Ctrl-C or SIGTERM, 1 when something could not be started or ended by itself.
    """
    options = _parser().parse_args(arguments)
    addresses = Addresses(urlsplit(options.host).netloc, options.prometheus, options.alertmanager)
    for wanted in (signal.SIGTERM, signal.SIGINT):
        signal.signal(wanted, signal.default_int_handler)
    try:
        with target.running(options.host, options.start) as service, monitoring(addresses) as tools:
            print(f"service       {options.host}/metrics")
            print(f"Prometheus    http://{addresses.prometheus}/alerts")
            print(f"Alertmanager  http://{addresses.alertmanager}")
            print("Ctrl-C ends them.", flush=True)
            _watch([process for process in (service, *tools) if process is not None])
    except (ToolMissing, target.TargetUnavailable) as error:
        print(f"monitor: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 0
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser("python -m deploy.monitor", description=__doc__)
    parser.add_argument("--host", default="http://127.0.0.1:8000", help="address of the service")
    parser.add_argument("--start", default="", help="command that starts the service where none answers")
    parser.add_argument("--prometheus", default="127.0.0.1:9090", help="where Prometheus listens")
    parser.add_argument("--alertmanager", default="127.0.0.1:9093", help="where Alertmanager listens")
    return parser


def _program(*names: str) -> str:
    """The first of the names that is on PATH: distributions disagree."""
    for name in names:
        path = shutil.which(name)
        if path is not None:
            return path
    raise ToolMissing(f"{names[-1]} is not installed: apt-get install prometheus prometheus-alertmanager")


def _watch(processes: Sequence[Process]) -> None:
    """Wait until one of them has ended.

    Raises:
        ToolMissing: Always, with its command and status.
    """
    while all(process.poll() is None for process in processes):
        time.sleep(_WATCH_S)
    ended = next(process for process in processes if process.returncode is not None)
    raise ToolMissing(f"{_command(ended)} ended with status {ended.returncode}")


def _command(process: Process) -> str:
    arguments = process.args
    return shlex.join(map(str, arguments)) if isinstance(arguments, (list, tuple)) else str(arguments)


@contextlib.contextmanager
def _running(command: Sequence[str], address: str) -> Iterator[Process]:
    if _is_ready(address):
        raise ToolMissing(f"something answers at {address} already")
    with tempfile.TemporaryFile() as log:
        process = subprocess.Popen(command, stdout=log, stderr=subprocess.STDOUT)  # noqa: S603  # our own
        try:
            _wait_until_ready(process, address)
            yield process
        except ToolMissing as error:
            log.seek(0)
            last = log.read().decode(errors="replace").splitlines()[-3:]
            raise ToolMissing("\n".join((str(error), *last))) from error
        finally:
            process.terminate()
            try:
                process.wait(STOP_TIMEOUT_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def _wait_until_ready(process: Process, address: str) -> None:
    deadline = time.monotonic() + READY_TIMEOUT_S
    while not _is_ready(address):
        if process.poll() is not None or time.monotonic() > deadline:
            raise ToolMissing(f"{_command(process)} did not get ready at {address}")
        time.sleep(_POLL_S)


def _is_ready(address: str) -> bool:
    connection = http.client.HTTPConnection(address, timeout=1)
    try:
        connection.request("GET", "/-/ready")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


if __name__ == "__main__":
    sys.exit(main())
