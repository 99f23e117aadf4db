"""The check-up: what it finds, what it says to do, and how it ends."""

from __future__ import annotations

import io
import json
import os
import resource
import socket
from collections.abc import Sequence
from pathlib import Path

import pytest

from service.__main__ import main
from service.access import Scope, make_key
from service.doctor import Finding, Verdict, examine, report
from service.doctor import installation as installation_checks
from service.doctor import machine as machine_checks
from service.engine import Kind
from tests.model_files import write_model


def findings(repository: Path, *flags: str) -> dict[str, Finding]:
    """By what was looked at."""
    found = examine(["--repository", str(repository), "--port", "0", "--threads", "1", *flags])
    return {finding.check: finding for finding in found}


def verdicts(found: dict[str, Finding], *checks: str) -> list[Verdict]:
    return [found[check].verdict for check in checks]


def test_a_sound_installation_is_found_sound(tmp_path: Path) -> None:
    write_model(tmp_path)
    found = findings(tmp_path)
    checks = ("settings", "packages", "runtime", "provider", "port", "repository", "model tiny")
    assert set(verdicts(found, *checks)) == {Verdict.OK}
    assert "version 1 serves on cpu" in found["model tiny"].found
    assert "threads" in found["settings"].found


def test_every_problem_and_warning_has_a_remedy(tmp_path: Path) -> None:
    write_model(tmp_path, fault="truncated")
    found = findings(tmp_path, "--workers", "64", "--max-connections", "1000000")
    assert all(bool(finding.remedy) == (finding.verdict is not Verdict.OK) for finding in found.values())
    assert verdicts(found, "model tiny", "threads") == [Verdict.PROBLEM, Verdict.WARNING]


def test_wrong_settings_are_the_first_problem(tmp_path: Path) -> None:
    (finding,) = findings(tmp_path, "--max-batch-size", "0").values()
    assert (finding.check, finding.verdict) == ("settings", Verdict.PROBLEM)


@pytest.mark.parametrize(
    ("flags", "check", "words"),
    [
        (("--repository", "/nowhere"), "repository", "No such file"),
        (("--models", "tiny,other"), "model other", "not in the repository"),
        (("--execution-provider", "cuda"), "provider", "cuda is asked for, but"),
        (("--api-keys-file", "/nowhere"), "keys", "cannot be read"),
    ],
)
def test_what_would_keep_it_from_serving_is_a_problem(
    tmp_path: Path, flags: Sequence[str], check: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(installation_checks, "missing_part", lambda _: "libcublas is missing")
    write_model(tmp_path)
    finding = findings(tmp_path, *flags)[check]
    assert finding.verdict is Verdict.PROBLEM
    assert words in finding.found


def test_an_empty_repository_is_a_problem(tmp_path: Path) -> None:
    assert findings(tmp_path)["repository"].verdict is Verdict.PROBLEM


def test_a_taken_port_is_a_problem(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        finding = findings(tmp_path, "--port", str(listener.getsockname()[1]))["port"]
    assert finding.verdict is Verdict.PROBLEM
    assert "Address already in use" in finding.found


def test_a_driver_without_cuda_is_a_warning_with_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def missing(_: Kind) -> str:
        return "libcudnn.so.9 cannot be loaded"

    monkeypatch.setattr(installation_checks, "has_driver", lambda: True)
    monkeypatch.setattr(installation_checks, "missing_part", missing)
    finding = findings(tmp_path)["provider"]
    assert finding.verdict is Verdict.WARNING
    assert "libcudnn.so.9" in finding.found


def test_two_runtimes_are_a_problem(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installation_checks, "_version", lambda _: "1.31.1")
    finding = findings(tmp_path)["runtime"]
    assert finding.verdict is Verdict.PROBLEM
    assert "pip uninstall onnxruntime onnxruntime-gpu" in finding.remedy


def test_a_higher_version_that_is_refused_is_a_warning(tmp_path: Path) -> None:
    write_model(tmp_path)
    write_model(tmp_path, version="2", fault="wrong_logits")
    finding = findings(tmp_path)["model tiny"]
    assert finding.verdict is Verdict.WARNING
    assert "version 1 serves" in finding.found
    assert "version 2: " in finding.found


def test_what_everybody_may_write_is_not_trusted(tmp_path: Path) -> None:
    write_model(tmp_path / "models").chmod(0o666)
    keys = tmp_path / "keys"
    keys.write_text(make_key("web", [Scope.PREDICT])[1])
    assert findings(tmp_path / "models", "--api-keys-file", str(keys))["keys"].verdict is Verdict.OK
    keys.chmod(0o666)
    found = findings(tmp_path / "models", "--api-keys-file", str(keys))
    assert verdicts(found, "repository", "keys") == [Verdict.WARNING, Verdict.PROBLEM]


def test_too_little_memory_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(machine_checks, "available_memory_bytes", lambda: 2**28)
    assert findings(tmp_path)["memory"].verdict is Verdict.WARNING
    monkeypatch.setattr(machine_checks, "available_memory_bytes", lambda: None)
    assert findings(tmp_path)["memory"].verdict is Verdict.OK


def test_too_few_descriptors_are_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resource, "getrlimit", lambda _: (256, 256))
    assert findings(tmp_path)["descriptors"].verdict is Verdict.WARNING


@pytest.mark.parametrize(("user", "verdict"), [(0, Verdict.WARNING), (10001, Verdict.OK)])
def test_root_is_a_warning(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, user: int, verdict: Verdict
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: user)
    assert findings(tmp_path)["user"].verdict is verdict


def test_the_report_is_lines_or_json() -> None:
    seen = [Finding("port", Verdict.OK, "free"), Finding("memory", Verdict.PROBLEM, "none", "buy some")]
    out = io.StringIO()
    assert report(seen, out, as_json=False) == 1
    assert out.getvalue().splitlines()[1:] == [
        "problem  memory         none",
        "                        ▸ buy some",
        "1 problem(s), 0 warning(s)",
    ]
    out = io.StringIO()
    assert report(seen[:1], out, as_json=True) == 0
    (finding,) = json.loads(out.getvalue())["findings"]
    assert finding == {"check": "port", "verdict": "ok", "found": "free", "remedy": ""}


def test_the_command_ends_with_the_number_that_scripts_look_at(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path)
    assert main(["doctor", "--json", "--repository", str(tmp_path), "--port", "0"]) == 0
    assert json.loads(capsys.readouterr().out)["problems"] == 0
    assert main(["doctor", "--repository", str(tmp_path / "none"), "--port", "0"]) == 1
    assert "problem  repository" in capsys.readouterr().out
