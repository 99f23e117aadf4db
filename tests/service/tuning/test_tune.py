"""``python -m service tune`` as it is run: real services, real load, settings that the service reads."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from service.__main__ import main
from service.artifact import Precision
from service.errors import InvalidConfiguration
from service.server import most_workers
from service.settings import Settings, load_settings
from service.tuning import subject
from tests.model_files import write_model

TIMEOUT_S = 60.0


def command(repository: Path, folder: Path, *flags: str) -> list[str]:
    own = ["--folder", str(folder), "--repository", str(repository), *flags]
    return [sys.executable, "-m", "service", "tune", *own]


@pytest.mark.e2e
def test_an_interrupted_search_leaves_settings_that_are_read_and_no_process(tmp_path: Path) -> None:
    write_model(tmp_path / "models")
    folder = tmp_path / "reports"
    printed = interrupted(tmp_path, after="hold it", status=0)[0]
    assert "The search ended early: it was interrupted." in printed
    settings = load_settings(["--settings", str(folder / "settings.env")])
    assert settings.model_fields_set == set()
    document = json.loads((folder / "result.json").read_text())
    assert document["model"] == {"name": "tiny", "version": "1"}
    assert document["trials"][0]["curves"][0][0]["latency_ms"]["p50"] > 0
    assert document["limit"]["total_ms"] > 0
    assert (folder / "curve.svg").read_text().startswith("<svg")
    assert printed.startswith((folder / "report.txt").read_text())


@pytest.mark.e2e
def test_a_search_that_is_interrupted_at_its_beginning_says_so_and_leaves_no_process(tmp_path: Path) -> None:
    write_model(tmp_path / "models")
    complaint = interrupted(tmp_path, after="at most", status=1)[1]
    assert complaint == "foldserve: interrupted before there was anything to report\n"
    assert not list((tmp_path / "reports").iterdir())


def interrupted(tmp_path: Path, *, after: str, status: int) -> tuple[str, str]:
    """What a search prints that is interrupted when it has said something; it leaves no process."""
    process = subprocess.Popen(  # noqa: S603 - our own program
        command(tmp_path / "models", tmp_path / "reports", "--objective", "p50<5s", "--minutes", "1"),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    assert process.stderr is not None
    assert any(after in line for line in process.stderr)
    process.send_signal(signal.SIGINT)
    printed, complaint = process.communicate(timeout=TIMEOUT_S)
    assert process.returncode == status, complaint
    own = {each.pid for each in psutil.process_iter() if str(tmp_path) in " ".join(words(each))}
    assert not own
    return printed, complaint


def words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:  # ended meanwhile
        return []


@pytest.mark.e2e
def test_a_missed_objective_ends_with_status_1_and_without_settings(tmp_path: Path) -> None:
    write_model(tmp_path / "models")
    folder = tmp_path / "reports"
    done = subprocess.run(  # noqa: S603 - our own program
        command(tmp_path / "models", folder, "--objective", "p50<0.001ms", "--minutes", "0.1"),
        capture_output=True,
        text=True,
        timeout=TIMEOUT_S,
        check=False,
    )
    assert done.returncode == 1
    assert "No configuration holds p50<0.001ms: the nearest is" in done.stderr
    assert (folder / "report.txt").exists()
    assert not (folder / "settings.env").exists()


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--max-accuracy-loss", "3"], "--max-accuracy-loss: '3' is no number from 0 to 1"),
        (["--max-accuracy-loss", "nan"], "--max-accuracy-loss: 'nan' is no number from 0 to 1"),
        (["--minutes", "abc"], "--minutes: 'abc' is no number from 0.1 to 120"),
        (["--minutes", "121"], "--minutes: '121' is no number from 0.1 to 120"),
    ],
)
def test_a_flag_out_of_its_bounds_is_refused(
    flags: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        main(["tune", *flags])
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


def test_a_folder_that_cannot_be_written_is_found_before_the_search(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(tmp_path / "models")
    (tmp_path / "file").write_text("")
    assert main(command(tmp_path / "models", tmp_path / "file" / "reports")[3:]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith(f"foldserve: --folder {tmp_path}/file/reports: the reports cannot be written")
    assert complaint.count("\n") == 1


def test_a_picture_that_cannot_be_read_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(path: Path) -> bytes:
        raise PermissionError(13, "Permission denied", str(path))

    write_model(tmp_path / "models")
    found = subject.find(Settings(repository=tmp_path / "models"), 0)
    (tmp_path / "folder.png").mkdir()
    (tmp_path / "one.jpg").write_bytes(b"picture")
    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InvalidConfiguration, match=r"cannot be read: .*one\.jpg"):
        found.images(tmp_path)


def test_files_that_state_no_accuracy_are_left_out_unless_allowed(tmp_path: Path) -> None:
    for precision in (Precision.FP32, Precision.INT8):
        write_model(tmp_path, precision=precision)
    settings = Settings(repository=tmp_path)
    assert list(subject.find(settings, 0.01).files) == [Precision.FP32]
    assert "state no accuracy" in subject.find(settings, 0.01).left_out[Precision.INT8]
    assert list(subject.find(settings, 1).files) == [Precision.FP32, Precision.INT8]


def test_the_file_that_is_set_is_tried_whatever_it_costs(tmp_path: Path) -> None:
    for precision in (Precision.FP32, Precision.INT8):
        write_model(tmp_path, precision=precision)
    found = subject.find(Settings(repository=tmp_path, precision="int8"), 0.01)
    assert found.loaded in found.files
    with pytest.raises(InvalidConfiguration, match=r"precision fp16 is set, .* only fp32, int8"):
        subject.find(Settings(repository=tmp_path, precision="fp16"), 0.01)


def test_the_shape_of_the_start_is_that_of_the_service(tmp_path: Path) -> None:
    write_model(tmp_path)
    found = subject.find(Settings(repository=tmp_path), 0)
    assert found.shape(Settings()) == (most_workers(), 1)
    assert found.shape(Settings(workers=3)) == (3, 1)
    assert found.shape(Settings(threads=2)) == (1, 2)


def test_pictures_are_the_models_own_or_a_folders(tmp_path: Path) -> None:
    write_model(tmp_path / "models")
    found = subject.find(Settings(repository=tmp_path / "models"), 0)
    assert [image[:4] for image in found.images(None)] == [b"\x89PNG"] * 3
    (tmp_path / "one.jpg").write_bytes(b"picture")
    assert found.images(tmp_path) == [b"picture"]
    with pytest.raises(InvalidConfiguration, match="no picture in"):
        found.images(tmp_path / "models" / "tiny")


def test_which_model_must_be_clear(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="no model repository"):
        subject.find(Settings(repository=tmp_path / "none"), 0)
    with pytest.raises(InvalidConfiguration, match="make model"):
        subject.find(Settings(repository=tmp_path), 0)
    write_model(tmp_path, name="one")
    write_model(tmp_path, name="two")
    with pytest.raises(InvalidConfiguration, match="name one with --models: one, two"):
        subject.find(Settings(repository=tmp_path), 0)
    assert subject.find(Settings(repository=tmp_path, models=("two",)), 0).name == "two"


def test_a_settings_file_gives_what_is_given_nowhere_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "settings.env"
    file.write_text("# found\nFOLDSERVE_WORKERS=2\nFOLDSERVE_THREADS=3\nFOLDSERVE_TOP_K=4\n")
    monkeypatch.setenv("FOLDSERVE_THREADS", "5")
    settings = load_settings(["--settings", str(file), "--top-k", "6"])
    assert (settings.workers, settings.threads, settings.top_k) == (2, 5, 6)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("FOLDSERVE_WORKER=2", "FOLDSERVE_WORKER: no such setting; the nearest is FOLDSERVE_WORKERS"),
        ("WORKERS=2", "WORKERS: no such setting"),
        ("FOLDSERVE_WORKERS=0", "FOLDSERVE_WORKERS=0: input should be greater"),
    ],
)
def test_a_wrong_line_in_a_settings_file_is_refused(tmp_path: Path, line: str, message: str) -> None:
    file = tmp_path / "settings.env"
    file.write_text(line + os.linesep)
    with pytest.raises(InvalidConfiguration, match=message):
        load_settings(["--settings", str(file)])


def test_a_settings_file_that_is_not_there_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="cannot be read"):
        load_settings(["--settings", str(tmp_path / "none.env")])
