"""A version is there whole or not at all, whoever else publishes and whenever a process dies."""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import pytest

from model_export.errors import InvalidConfig, PublishFailed
from model_export.pipeline.publication import next_version, publish


def write(folder: Path, version: int) -> None:
    (folder / "model.onnx").write_text(f"version {version}")
    (folder / "report.json").write_text("{}")


def test_versions_count_up_from_one(tmp_path: Path) -> None:
    assert [publish(tmp_path / "models", "m", write).name for _ in range(3)] == ["1", "2", "3"]
    assert (tmp_path / "models/m/2/model.onnx").read_text() == "version 2"


def test_the_next_version_follows_the_highest_number_not_the_count(tmp_path: Path) -> None:
    for entry in ("2", "10", "latest", "007", ".publishing-abc"):
        (tmp_path / "m" / entry).mkdir(parents=True)
    assert next_version(tmp_path, "m") == 11


@pytest.mark.parametrize("name", ["../m", "", ".hidden", "a/b", "x" * 65])
def test_a_name_that_could_leave_the_folder_is_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(InvalidConfig, match="--name"):
        publish(tmp_path, name, write)
    assert list(tmp_path.iterdir()) == []


def test_a_failing_writer_leaves_nothing_behind(tmp_path: Path) -> None:
    publish(tmp_path, "m", write)

    def fail(folder: Path, version: int) -> None:
        write(folder, version)
        raise OSError(28, "No space left on device")

    with pytest.raises(PublishFailed, match="No space left on device; nothing was published"):
        publish(tmp_path, "m", fail)
    assert [entry.name for entry in (tmp_path / "m").iterdir()] == ["1"]


def test_a_repository_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "models").write_text("a file where the folder should be")
    with pytest.raises(PublishFailed, match="models"):
        publish(tmp_path / "models", "m", write)


def test_a_number_taken_meanwhile_is_left_alone_and_the_next_one_taken(tmp_path: Path) -> None:
    def write_while_another_publishes(folder: Path, version: int) -> None:
        write(folder, version)
        if version == 1:
            publish(tmp_path, "m", write)

    assert publish(tmp_path, "m", write_while_another_publishes).name == "2"
    assert (tmp_path / "m/1/model.onnx").read_text() == "version 1"
    assert (tmp_path / "m/2/model.onnx").read_text() == "version 2"


def _publish_repeatedly(repository: Path, times: int) -> None:
    for _ in range(times):
        publish(repository, "m", write)


def test_concurrent_publishers_do_not_collide(tmp_path: Path) -> None:
    context = multiprocessing.get_context("spawn")
    processes = [context.Process(target=_publish_repeatedly, args=(tmp_path, 5)) for _ in range(2)]
    for process in processes:
        process.start()
    for process in processes:
        process.join(60)
    assert [process.exitcode for process in processes] == [0, 0]
    versions = sorted(int(entry.name) for entry in (tmp_path / "m").iterdir())
    assert versions == list(range(1, 11))
    assert all((tmp_path / f"m/{n}/model.onnx").read_text() == f"version {n}" for n in versions)


def _die_while_writing(repository: Path) -> None:
    def write_and_die(folder: Path, version: int) -> None:
        write(folder, version)
        os.kill(os.getpid(), signal.SIGKILL)

    publish(repository, "m", write_and_die)


def test_a_killed_publication_leaves_a_hidden_folder_that_is_swept_later(tmp_path: Path) -> None:
    publish(tmp_path, "m", write)
    process = multiprocessing.get_context("spawn").Process(target=_die_while_writing, args=(tmp_path,))
    process.start()
    process.join(60)
    assert process.exitcode == -signal.SIGKILL
    (abandoned,) = (entry for entry in (tmp_path / "m").iterdir() if entry.name != "1")
    assert abandoned.name.startswith(".publishing-")

    assert publish(tmp_path, "m", write).name == "2"
    assert abandoned.exists()  # it might be somebody's who is still writing
    hours_ago = time.time() - 7200
    os.utime(abandoned, (hours_ago, hours_ago))
    assert publish(tmp_path, "m", write).name == "3"
    assert not abandoned.exists()


def test_the_service_may_read_what_is_published(tmp_path: Path) -> None:
    assert publish(tmp_path, "m", write).stat().st_mode & 0o777 == 0o755
