"""`python -m service rollback` and `route`: file operations that a running service follows."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from service.__main__ import main
from tests.model_files import write_model
from tests.service.repository.running import serving


def versions(root: Path, *numbers: str) -> None:
    for number in numbers:
        write_model(root, version=number)


def plan(root: Path) -> dict[str, Any]:
    document: dict[str, Any] = json.loads((root / "tiny" / "serving.json").read_text())
    return document


def service(root: Path, command: str, *flags: str) -> int:
    return main([command, "tiny", *flags, "--repository", str(root), "--threads", "1"])


async def test_a_running_service_follows_a_rollback(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    versions(tmp_path, "1", "2", "3")
    write_model(tmp_path, version="4", fault="wrong_logits")
    async with serving(tmp_path) as repository:
        assert repository.resolve().version == "3"
        assert service(tmp_path, "rollback") == 0  # 4 is bad, 3 serves
        assert capsys.readouterr().out.endswith('serving.json: {"version":"2"}\n')
        await repository.look()
        assert repository.resolve().version == "2"
        assert service(tmp_path, "rollback", "--to", "1") == 0
        await repository.look()
        assert repository.resolve().version == "1"
        assert service(tmp_path, "rollback", "--to", "latest") == 0
        await repository.look()
        assert repository.resolve().version == "3"


@pytest.mark.parametrize(
    ("flags", "complaint"),
    [
        (("rollback", "--to", "9"), "no version 9; there is: 3, 2, 1"),
        (("rollback", "--to", "../1"), "no version ../1; there is: 3, 2, 1"),
        (("rollback", "--to", "2"), "logits differ"),
        (("route", "--canary", "2=0.1"), "logits differ"),
        (("route", "--canary", "1=2"), "canary.weight"),
        (("route", "--alias", "9=1"), "aliases.9"),
        (("route", "--shadow", "x"), "shadow"),
    ],
)
def test_what_would_not_serve_is_refused(
    tmp_path: Path, flags: tuple[str, ...], complaint: str, capsys: pytest.CaptureFixture[str]
) -> None:
    versions(tmp_path, "1", "3")
    write_model(tmp_path, version="2", fault="wrong_logits")
    assert service(tmp_path, *flags) > 0
    said = capsys.readouterr().err
    assert complaint in said
    assert said.count("\n") == 1
    assert not (tmp_path / "tiny" / "serving.json").exists()


def test_nothing_to_roll_back_to(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    versions(tmp_path, "1")
    assert service(tmp_path, "rollback") > 0
    assert "no good version below 1" in capsys.readouterr().err
    assert main(["rollback", "giant", "--repository", str(tmp_path)]) > 0
    assert "no model 'giant'" in capsys.readouterr().err


@pytest.mark.parametrize("flags", [("--canary", "2=0.5"), ("--shadow", "2")])
def test_a_route_that_leaves_no_version_to_be_live_is_refused(
    tmp_path: Path, flags: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    versions(tmp_path, "2")
    write_model(tmp_path, version="1", fault="wrong_logits")
    assert service(tmp_path, "route", *flags) > 0
    assert "no version that may be live" in capsys.readouterr().err
    assert not (tmp_path / "tiny" / "serving.json").exists()


def test_routes_are_added_and_taken_back(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2", "3")
    assert service(tmp_path, "route", "--alias", "mobile=1", "--alias", "web=2", "--canary", "3=0.05") == 0
    assert service(tmp_path, "route", "--shadow", "2", "--alias", "web=none") == 0
    written = plan(tmp_path)
    assert written["aliases"] == {"mobile": "1"}
    assert written["canary"] == {"version": "3", "weight": 0.05}
    assert written["shadow"] == "2"
    assert service(tmp_path, "route", "--canary", "none", "--shadow", "none", "--alias", "mobile=none") == 0
    written = plan(tmp_path)
    assert (written["aliases"], written["canary"], written["shadow"]) == ({}, None, None)
