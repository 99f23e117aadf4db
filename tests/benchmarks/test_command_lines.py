"""Slips on the command lines of benchmarks: one line each, before anything is measured."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from benchmarks import gpu_check, request_profile
from benchmarks.overload import __main__ as overload
from benchmarks.serving import __main__ as serving
from tests.model_files import write_model

Main = Callable[[Sequence[str]], int]
MAINS: dict[str, Main] = {
    "gpu-check": gpu_check.main,
    "bench-profile": request_profile.main,
    "bench-overload": overload.main,
    "bench": serving.main,
}
NUMBERS = {
    "gpu-check": ("--seconds",),
    "bench-profile": ("--clients", "--seconds"),
    "bench-overload": ("--rounds", "--seconds"),
    "bench": ("--rounds", "--seconds", "--concurrency"),
}


@pytest.mark.parametrize(
    ("name", "flag"), [(name, flag) for name, flags in NUMBERS.items() for flag in flags]
)
@pytest.mark.parametrize("value", ["0", "-1", "nan", "many"])
def test_numbers_are_above_0(name: str, flag: str, value: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        MAINS[name]([flag, value])
    assert f"error: argument {flag}: " in capsys.readouterr().err.splitlines()[-1]


def test_an_overload_is_longer_than_what_is_not_counted_of_it(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        overload.main(["--seconds", "1"])
    assert "argument --seconds: 1 is not above 1" in capsys.readouterr().err


@pytest.mark.usefixtures("several_cpus")
@pytest.mark.parametrize("name", ["bench-profile", "bench-overload"])
def test_a_missing_repository_is_told_in_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert MAINS[name](["--repository", str(tmp_path / "nowhere")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line == f"{name}: no model repository at '{tmp_path / 'nowhere'}'; `make model` makes one"


@pytest.mark.usefixtures("several_cpus")
@pytest.mark.parametrize("name", ["bench-profile", "bench-overload"])
def test_missing_pictures_are_told_in_one_line(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path)
    assert MAINS[name](["--repository", str(tmp_path), "--pictures", str(tmp_path / "nowhere")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith(f"{name}: no picture in '{tmp_path / 'nowhere'}' (")


def test_a_missing_sampler_is_told_in_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path)
    monkeypatch.setattr("sys.executable", str(tmp_path / "python"))
    assert request_profile.main(["--repository", str(tmp_path)]) == 1
    said = capsys.readouterr().err
    assert said == "bench-profile: py-spy is not installed; `make bench-profile` installs it\n"


@pytest.mark.parametrize("name", MAINS)
def test_the_help_teaches(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Every flag has a text that says what it is without it; no picture of a docstring is reflowed."""
    with pytest.raises(SystemExit):
        MAINS[name](["--help"])
    said = " ".join(capsys.readouterr().out.split())
    assert "::" not in said
    _, _, texts = said.partition("show this help message and exit")
    entries = [entry for entry in texts.split(" --") if entry.strip()]
    assert entries
    assert [entry for entry in entries if "(default: " not in entry] == []


@pytest.fixture
def several_cpus(monkeypatch: pytest.MonkeyPatch) -> None:
    """The overload needs two, and says so before anything else."""
    monkeypatch.setattr("os.sched_getaffinity", lambda _: {0, 1})
