"""Whole runs of ``python -m loadtest`` against a service that answers by script."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from loadtest import target
from loadtest.__main__ import main
from tests.loadtest.scripted_service import Answer, count_images, document, right_shaped, serving

START = f"{sys.executable} -m tests.loadtest.start"


def _run(tmp_path: Path, url: str, *options: str) -> tuple[int, str, dict[str, Any]]:
    command = [sys.executable, "-m", "loadtest", "--host", url, "--reports", str(tmp_path)]
    command += ["--duration", "1", "--users", "2", *options]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)  # noqa: S603
    (folder,) = tmp_path.iterdir()
    names = {path.name for path in folder.iterdir()}
    assert {"report.html", "samples.csv", "result.json", "locust.html", "locust_stats.csv"} <= names, (
        run.stderr
    )
    assert (folder / "report.html").read_text().count("<svg") == 3
    return run.returncode, run.stdout, json.loads((folder / "result.json").read_text())


def test_a_good_service_holds_a_fair_objective(tmp_path: Path) -> None:
    with serving(right_shaped) as url:
        code, text, result = _run(tmp_path, url, "--objective", "p99<10s, errors<=0%")
    assert code == 0, text
    assert set(result["by_form"]) <= {"raw", "multipart", "json"}
    assert result["all"]["stages_ms"] == {"decode": 0.5, "queue": 0.25, "inference": 2}
    assert "verdict: held" in text
    assert (
        0.9 < result["all"]["duration_s"] < 10
    )  # as long as was asked for; more where an answer was awaited


def test_a_missed_objective_fails_the_run(tmp_path: Path) -> None:
    with serving(right_shaped) as url:
        code, text, result = _run(tmp_path, url, "--objective", "p99<0.001ms")
    assert (code, result["held"]) == (1, False)
    assert "verdict: MISSED" in text


def test_wrong_answers_are_errors(tmp_path: Path) -> None:
    def one_too_many(content_type: str, body: bytes) -> Answer:
        return 200, document(count_images(content_type, body) + 1)

    with serving(one_too_many) as url:
        code, _, result = _run(tmp_path, url, "--objective", "errors<1%")
    assert code == 1
    assert set(result["all"]["by_kind"]) == {"wrong_shape"}


def test_a_service_that_does_not_run_is_started_and_stopped(unused_tcp_port: int) -> None:
    url = f"http://127.0.0.1:{unused_tcp_port}"
    with target.running(url, START):
        assert target.is_ready(url)
        with target.running(url, "false"):  # one that runs is used as it is
            pass
        assert target.is_ready(url)
    assert not target.is_ready(url)


def test_a_service_that_cannot_start_is_reported(unused_tcp_port: int) -> None:
    with (
        pytest.raises(target.TargetUnavailable, match="ended with status 1"),
        target.running(f"http://127.0.0.1:{unused_tcp_port}", "false"),
    ):
        pass


@pytest.mark.parametrize("option", ["--rate", "--users", "--duration"])
@pytest.mark.parametrize("value", ["0", "-1", "many"])
def test_a_load_that_is_none_is_refused(option: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([option, value])
    assert option in capsys.readouterr().err


@pytest.mark.parametrize("options", [[], ["--objective", "fast"], ["--pictures", "/nowhere"]])
def test_nothing_measured_is_status_2(
    options: list[str], unused_tcp_port: int, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--host", f"http://127.0.0.1:{unused_tcp_port}", *options]) == 2
    assert capsys.readouterr().err.startswith("loadtest: ")
