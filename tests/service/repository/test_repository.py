"""The repository: what serves, what is refused and why, and what a bad version does to the others."""

from __future__ import annotations

import asyncio
import os
import shutil
import threading
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from service.artifact import Precision, Task, sidecar_path
from service.errors import (
    ContractMismatch,
    FoldserveError,
    InvalidConfiguration,
    InvalidFile,
    LoadFailed,
    ModelNotFound,
    ModelRejected,
    NotReady,
    SelfTestFailed,
)
from service.metrics import Metrics
from service.repository import Repository
from tests.model_files import Fault, TinyModel, write_model
from tests.service.repository.running import exposition, options, started

REJECTIONS: dict[Fault, type[ModelRejected]] = {
    "truncated": InvalidFile,
    "not_onnx": InvalidFile,
    "empty": InvalidFile,
    "wrong_checksum": InvalidFile,
    "malformed_sidecar": InvalidFile,
    "no_metadata": ContractMismatch,
    "broken_metadata": ContractMismatch,
    "other_schema": ContractMismatch,
    "other_input_shape": ContractMismatch,
    "other_input_type": ContractMismatch,
    "other_input_name": ContractMismatch,
    "fixed_batch": ContractMismatch,
    "other_output_name": ContractMismatch,
    "missing_label": ContractMismatch,
    "other_precision": ContractMismatch,
    "wrong_logits": SelfTestFailed,
    "wrong_top1": SelfTestFailed,
    "nan_logits": SelfTestFailed,
    "wrong_probabilities": SelfTestFailed,
    "undecodable_selftest": SelfTestFailed,
    "no_tolerance": SelfTestFailed,
    "unknown_operator": LoadFailed,
    "outside_weights": ContractMismatch,
    "weights_beside": ContractMismatch,
}


async def test_serves_what_the_file_computes(tmp_path: Path) -> None:
    model = TinyModel.make()
    write_model(tmp_path, model=model)
    repository = await started(tmp_path)
    served = repository.resolve()
    pixels = [model.image(seed) for seed in range(10, 20)]
    with served.batcher.admit(len(pixels)) as permit:
        futures = [served.batcher.submit(permit, image) for image in pixels]
        async with asyncio.timeout(10):
            rows = [await future for future in futures]
    np.testing.assert_allclose(
        [row.logits for row in rows], model.logits(np.stack(pixels)), rtol=1e-5, atol=1e-5
    )
    assert repository.is_ready
    assert repository.is_alive
    await repository.close(1)
    assert not repository.is_ready


@pytest.mark.parametrize("fault", sorted(REJECTIONS))
async def test_a_bad_file_never_serves(tmp_path: Path, fault: Fault) -> None:
    write_model(tmp_path, fault=fault)
    with pytest.raises(REJECTIONS[fault], match="model") as caught:
        await started(tmp_path)
    assert type(caught.value) is REJECTIONS[fault]
    assert "\n" not in str(caught.value)


async def test_a_bad_version_leaves_the_next_lower_one(tmp_path: Path) -> None:
    write_model(tmp_path, version="2")
    write_model(tmp_path, version="9")
    write_model(tmp_path, version="10", fault="wrong_logits")
    repository = await started(tmp_path)
    assert repository.resolve().version == "9"
    states = {line.version: (line.state, line.reason) for line in repository.index()}
    assert states["9"] == ("READY", "")
    assert states["10"][0] == "UNAVAILABLE"
    assert "logits differ" in states["10"][1]
    text = exposition(repository)
    assert 'foldserve_reloads_total{model="tiny",result="selftest_failed"} 1.0' in text
    assert 'foldserve_reloads_total{model="tiny",result="success"} 1.0' in text
    assert 'version="10"' not in text
    await repository.close(1)


async def test_a_file_without_a_sidecar_serves_with_a_warning(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    write_model(tmp_path, fault="no_sidecar")
    repository = await started(tmp_path)
    assert "no checksum" in caplog.text
    await repository.close(1)


async def test_a_checksum_may_be_one_of_binary_mode(tmp_path: Path) -> None:
    """As `sha256sum --binary` writes it."""
    sidecar = sidecar_path(write_model(tmp_path))
    sidecar.write_text(sidecar.read_text().replace("  ", " *"))
    repository = await started(tmp_path)
    await repository.close(1)


async def test_a_multilabel_model_serves(tmp_path: Path) -> None:
    write_model(tmp_path, task=Task.MULTILABEL)
    repository = await started(tmp_path)
    await repository.close(1)


@pytest.mark.parametrize("name", ["../outside", ".hidden", "a/b", "ümlaut", "-flag", "x" * 65, "trailing\n"])
async def test_a_name_outside_the_pattern_is_no_model(tmp_path: Path, name: str) -> None:
    root = tmp_path / "models"
    write_model(root)
    shutil.copytree(root / "tiny", root / name)
    repository = await started(root)
    assert [model.name for model in repository.served] == ["tiny"]
    with pytest.raises(ModelNotFound):
        repository.resolve(name)
    await repository.close(1)


@pytest.mark.parametrize("version", ["0", "01", "v2", "2.0", "1234567890", "tmp"])
async def test_a_folder_outside_the_pattern_is_no_version(tmp_path: Path, version: str) -> None:
    write_model(tmp_path)
    shutil.copytree(tmp_path / "tiny" / "1", tmp_path / "tiny" / version)
    repository = await started(tmp_path)
    assert repository.resolve().version == "1"
    await repository.close(1)


def _link_model(root: Path, outside: Path) -> None:
    (root / "tiny").symlink_to(outside / "tiny")


def _link_version(root: Path, outside: Path) -> None:
    (root / "tiny").mkdir()
    (root / "tiny" / "1").symlink_to(outside / "tiny" / "1")


def _link_file(root: Path, outside: Path) -> None:
    (root / "tiny" / "1").mkdir(parents=True)
    (root / "tiny" / "1" / "model.onnx").symlink_to(outside / "tiny" / "1" / "model.onnx")


@pytest.mark.parametrize("link", [_link_model, _link_version, _link_file])
async def test_a_link_cannot_lead_out(tmp_path: Path, link: Callable[[Path, Path], None]) -> None:
    root, outside = tmp_path / "models", tmp_path / "elsewhere"
    root.mkdir()
    write_model(outside)
    link(root, outside)
    with pytest.raises(FoldserveError):
        await started(root)


def _link_out(sidecar: Path) -> None:
    sidecar.rename(sidecar.parents[3] / sidecar.name)
    sidecar.symlink_to(sidecar.parents[3] / sidecar.name)


def _pipe(sidecar: Path) -> None:
    sidecar.unlink()
    os.mkfifo(sidecar)


@pytest.mark.parametrize(("change", "complaint"), [(_link_out, "leads out"), (_pipe, "no file")])
async def test_a_checksum_is_a_file_of_the_repository(
    tmp_path: Path, change: Callable[[Path], None], complaint: str
) -> None:
    change(sidecar_path(write_model(tmp_path / "models")))
    with pytest.raises(InvalidFile, match=complaint):
        await started(tmp_path / "models")


async def test_a_link_inside_the_repository_is_followed(tmp_path: Path) -> None:
    write_model(tmp_path, name="store", version="7")
    (tmp_path / "tiny").mkdir()
    (tmp_path / "tiny" / "1").symlink_to(tmp_path / "store" / "7")
    repository = await started(tmp_path, models=["tiny"])
    assert repository.resolve().version == "1"
    await repository.close(1)


async def test_the_default_model(tmp_path: Path) -> None:
    write_model(tmp_path, name="a")
    only = await started(tmp_path)
    assert only.resolve().name == "a"
    write_model(tmp_path, name="digits")
    several = await started(tmp_path)
    assert several.resolve().name == "digits"
    chosen = await started(tmp_path, default_model="a")
    assert chosen.resolve().name == "a"
    for repository in (only, several, chosen):
        await repository.close(1)


async def test_no_default_among_several(tmp_path: Path) -> None:
    write_model(tmp_path, name="a")
    write_model(tmp_path, name="b")
    repository = await started(tmp_path)
    with pytest.raises(ModelNotFound, match="a, b"):
        repository.resolve()
    assert repository.resolve("b").name == "b"
    await repository.close(1)


async def test_resolve_refuses_what_does_not_serve(tmp_path: Path) -> None:
    write_model(tmp_path, version="3")
    repository = await started(tmp_path)
    with pytest.raises(ModelNotFound, match="version 3"):
        repository.resolve("tiny", "2")
    with pytest.raises(ModelNotFound, match="tiny"):
        repository.resolve("giant")
    assert repository.resolve("tiny", "3").version == "3"
    await repository.close(1)


def test_nothing_is_resolved_before_start(tmp_path: Path) -> None:
    repository = Repository(options(tmp_path), Metrics(version="test"))
    assert not repository.is_ready
    with pytest.raises(NotReady):
        repository.resolve()


async def test_a_repository_that_cannot_be_served(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="no model repository"):
        await started(tmp_path / "missing")
    with pytest.raises(InvalidConfiguration, match="cannot be read"):
        await started(tmp_path / ("x" * 300))
    with pytest.raises(InvalidConfiguration, match="no models"):
        await started(tmp_path)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InvalidConfiguration, match="no models"):
        await started(tmp_path)
    write_model(tmp_path)
    with pytest.raises(InvalidConfiguration, match="giant"):
        await started(tmp_path, models=["giant"])
    with pytest.raises(InvalidConfiguration, match="default_model"):
        await started(tmp_path, default_model="giant")


async def test_the_precision_asked_for(tmp_path: Path) -> None:
    write_model(tmp_path)
    with pytest.raises(InvalidFile, match=r"model\.int8\.onnx"):
        await started(tmp_path, precision=Precision.INT8)
    write_model(tmp_path, precision=Precision.INT8)
    repository = await started(tmp_path, precision=Precision.INT8)
    assert repository.resolve().metadata.precision is Precision.INT8
    await repository.close(1)


async def test_automatic_precision_takes_what_there_is(tmp_path: Path) -> None:
    write_model(tmp_path)
    repository = await started(tmp_path, precision=None)
    assert repository.resolve().metadata.precision is Precision.FP32
    await repository.close(1)


async def test_what_is_served_is_shown(tmp_path: Path) -> None:
    path = write_model(tmp_path)
    repository = await started(tmp_path)
    text = exposition(repository)
    digest = repository.resolve().engine.sha256
    assert path.with_name("model.onnx.sha256").read_text().startswith(digest)
    assert f'foldserve_model_info{{model="tiny",precision="fp32",sha256="{digest}",version="1"}} 1.0' in text
    assert 'foldserve_execution_provider_info{active="cpu",model="tiny",requested="cpu"} 1.0' in text
    assert 'foldserve_queue_capacity{model="tiny"} 1024.0' in text
    await repository.close(1)


async def test_a_model_that_fails_leaves_no_thread_of_the_others(tmp_path: Path) -> None:
    write_model(tmp_path, name="a")
    write_model(tmp_path, name="b", fault="wrong_logits")
    before = {thread.name for thread in threading.enumerate()}
    with pytest.raises(SelfTestFailed):
        await started(tmp_path)
    after = {thread.name for thread in threading.enumerate()}
    assert not [name for name in after - before if name.startswith("engine")]
