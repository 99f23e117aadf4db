"""Reloading: what is picked up and when, what a bad version changes (nothing), and what is given back."""

from __future__ import annotations

import asyncio
import gc
import shutil
import threading
import weakref
from pathlib import Path

import numpy as np
import pytest

from service.artifact import sidecar_path
from service.errors import ShuttingDown
from service.repository import Repository
from tests.model_files import Fault, TinyModel, write_model
from tests.service.fakes import until
from tests.service.repository.running import exposition, logits, serving, started, states
from tests.service.repository.test_repository import REJECTIONS


async def test_a_new_version_takes_over_and_the_old_one_is_released(tmp_path: Path) -> None:
    models = TinyModel.make(seed=1), TinyModel.make(seed=2)
    write_model(tmp_path, version="1", model=models[0])
    async with serving(tmp_path) as repository:
        old = repository.resolve()
        write_model(tmp_path, version="2", model=models[1])
        await repository.look()
        new = repository.resolve()
        assert (old.version, new.version) == ("1", "2")
        assert not np.allclose(await logits(new), models[0].logits(_batch(models[0]))[0])
        await asyncio.sleep(0)
        with pytest.raises(ShuttingDown):
            old.batcher.admit(1)
        await until(lambda: not [t for t in threading.enumerate() if t.name == "engine tiny/1"])
        engine = weakref.ref(old.engine)
        await until(lambda: not repository._retiring)
        old = new
        gc.collect()
        assert engine() is None
        text = exposition(repository)
        assert 'model_info{model="tiny",precision="fp32"' in text
        assert text.count("foldserve_model_info{") == 1
        assert 'foldserve_reloads_total{model="tiny",result="success"} 2.0' in text


def _batch(model: TinyModel) -> np.ndarray[tuple[int, ...], np.dtype[np.uint8]]:
    return model.image(1)[np.newaxis]


async def test_the_old_version_finishes_what_it_admitted(tmp_path: Path) -> None:
    model = TinyModel.make()
    write_model(tmp_path, version="1", model=model)
    async with serving(tmp_path) as repository:
        old = repository.resolve()
        with old.batcher.admit(2) as permit:
            write_model(tmp_path, version="2")
            await repository.look()
            assert repository.resolve().version == "2"
            rows = [old.batcher.submit(permit, model.image(seed)) for seed in (1, 2)]
            answers = [(await row).logits for row in rows]
        expected = model.logits(np.stack([model.image(seed) for seed in (1, 2)]))
        np.testing.assert_allclose(answers, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("fault", sorted(REJECTIONS))
async def test_a_bad_new_version_changes_nothing(
    tmp_path: Path, fault: Fault, caplog: pytest.LogCaptureFixture
) -> None:
    write_model(tmp_path, version="1")
    async with serving(tmp_path) as repository:
        before = repository.resolve()
        write_model(tmp_path, version="2", fault=fault)
        for _ in range(4):
            await repository.look()
        assert repository.resolve() is before
        assert repository.is_ready
        result = REJECTIONS[fault].result
        assert f'foldserve_reloads_total{{model="tiny",result="{result}"}} 1.0' in exposition(repository)
        assert states(repository)["1"] == "READY"
        assert states(repository)["2"].startswith("UNAVAILABLE ")
        assert caplog.text.count("version 2 does not serve: ") == 1  # not in a loop


async def test_what_does_not_fit_into_memory_is_refused(tmp_path: Path) -> None:
    write_model(tmp_path, version="1")
    async with serving(tmp_path) as repository:
        write_model(tmp_path, version="2", fault="too_large")
        await repository.look()
        assert repository.resolve().version == "1"
        assert "llocat" in states(repository)["2"]


async def test_a_refused_version_is_tried_again_when_its_files_change(tmp_path: Path) -> None:
    write_model(tmp_path, version="1")
    async with serving(tmp_path) as repository:
        write_model(tmp_path, version="2", fault="wrong_logits")
        await repository.look()
        assert repository.resolve().version == "1"
        write_model(tmp_path, version="2")
        await repository.look()
        assert repository.resolve().version == "2"
        assert states(repository)["2"] == "READY"


async def test_files_that_are_replaced_in_place_are_loaded_again(tmp_path: Path) -> None:
    write_model(tmp_path, model=TinyModel.make(seed=1))
    async with serving(tmp_path) as repository:
        before = repository.resolve()
        write_model(tmp_path, model=TinyModel.make(seed=2))
        await repository.look()
        after = repository.resolve()
        assert after is not before
        assert after.version == before.version
        await until(lambda: not repository._retiring)
        assert exposition(repository).count("foldserve_model_info{") == 1
        assert after.engine.sha256 in exposition(repository)


async def test_files_that_are_replaced_by_bad_ones_leave_what_is_loaded(tmp_path: Path) -> None:
    write_model(tmp_path)
    async with serving(tmp_path) as repository:
        before = repository.resolve()
        write_model(tmp_path, fault="wrong_checksum")
        await repository.look()
        await repository.look()
        assert repository.resolve() is before
        assert states(repository)["1"].startswith("READY ")
        assert "SHA-256" in states(repository)["1"]


async def test_half_a_copy_waits_until_it_is_whole(tmp_path: Path) -> None:
    whole = write_model(tmp_path / "elsewhere", version="2").read_bytes()
    write_model(tmp_path, version="1")
    async with serving(tmp_path) as repository:
        copy = tmp_path / "tiny" / "2" / "model.onnx"
        copy.parent.mkdir()
        for end in (100, len(whole) // 2, len(whole)):
            copy.write_bytes(whole[:end])
            await repository.look()
            assert repository.resolve().version == "1"
            assert states(repository)["2"] == "UNAVAILABLE its files have not settled yet"
        await repository.look()  # nothing has changed since the last look
        assert repository.resolve().version == "2"
        assert 'result="invalid_file"} 0.0' in exposition(repository)


async def test_a_right_checksum_beside_it_is_proof_enough(tmp_path: Path) -> None:
    write_model(tmp_path, version="1")
    async with serving(tmp_path) as repository:
        path = write_model(tmp_path, version="2")
        checksum = sidecar_path(path).read_text()
        sidecar_path(path).unlink()
        await repository.look()
        assert repository.resolve().version == "1"
        sidecar_path(path).write_text(checksum)
        await repository.look()
        assert repository.resolve().version == "2"


async def test_a_publication_is_not_seen_before_its_rename(tmp_path: Path) -> None:
    write_model(tmp_path, version="1")
    write_model(tmp_path / "elsewhere", version="2")
    async with serving(tmp_path) as repository:
        staged = tmp_path / "tiny" / ".publishing-x7k2"
        shutil.copytree(tmp_path / "elsewhere" / "tiny" / "2", staged)
        await repository.look()
        await repository.look()
        assert repository.resolve().version == "1"
        staged.rename(tmp_path / "tiny" / "2")
        await repository.look()
        assert repository.resolve().version == "2"


async def test_a_deleted_version_gives_way_to_the_next_lower(tmp_path: Path) -> None:
    write_model(tmp_path, version="1")
    write_model(tmp_path, version="2")
    async with serving(tmp_path) as repository:
        shutil.rmtree(tmp_path / "tiny" / "2")
        await repository.look()
        assert repository.resolve().version == "1"


async def test_what_serves_outlives_its_files(tmp_path: Path) -> None:
    write_model(tmp_path / "models")
    async with serving(tmp_path / "models") as repository:
        shutil.rmtree(tmp_path / "models" / "tiny" / "1")
        await repository.look()
        assert repository.is_ready
        shutil.rmtree(tmp_path / "models")
        with pytest.raises(Exception, match="no model repository"):
            await repository.look()
        assert (await logits(repository.resolve())).shape == (3,)


async def test_a_new_model_is_served_and_the_default_stays(tmp_path: Path) -> None:
    write_model(tmp_path)
    async with serving(tmp_path) as repository:
        write_model(tmp_path, name="new")
        write_model(tmp_path, name="broken", fault="truncated")
        await repository.look()
        await repository.look()
        assert repository.resolve("new").version == "1"
        assert repository.resolve().name == "tiny"
        assert repository.is_ready
        broken = [line for line in repository.index() if line.name == "broken"]
        assert [line.state for line in broken] == ["UNAVAILABLE"]


async def test_only_the_models_asked_for_are_watched(tmp_path: Path) -> None:
    write_model(tmp_path)
    async with serving(tmp_path, models=["tiny"]) as repository:
        write_model(tmp_path, name="new")
        await repository.look()
        assert [model.name for model in repository.served] == ["tiny"]


async def test_a_wanted_model_that_vanishes_stops_the_others_from_nothing(tmp_path: Path) -> None:
    write_model(tmp_path, version="1")
    write_model(tmp_path, name="other")
    async with serving(tmp_path, models=["tiny", "other"]) as repository:
        shutil.rmtree(tmp_path / "other")
        write_model(tmp_path, version="2")
        await repository.look()
        assert repository.resolve("tiny").version == "2"
        assert repository.resolve("other").version == "1"


async def test_the_watcher_looks_by_itself(tmp_path: Path) -> None:
    write_model(tmp_path, version="1")
    async with serving(tmp_path, reload_interval_s=0.01) as repository:
        write_model(tmp_path, version="2")
        await until(lambda: repository.resolve().version == "2")


async def test_the_watcher_survives_what_it_cannot_read(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    root = tmp_path / "models"
    write_model(root, version="1")
    async with serving(root, reload_interval_s=0.01) as repository:
        root.rename(tmp_path / "away")
        await until(lambda: "cannot be looked at" in caplog.text)
        (tmp_path / "away").rename(root)
        write_model(root, version="2")
        await until(lambda: repository.resolve().version == "2")
    assert caplog.text.count("cannot be looked at") == 1


async def test_closing_ends_a_version_that_is_still_finishing(tmp_path: Path) -> None:
    write_model(tmp_path, version="1")
    repository: Repository = await started(tmp_path)
    old = repository.resolve()
    permit = old.batcher.admit(1)
    write_model(tmp_path, version="2")
    async with asyncio.timeout(30):
        await repository.look()
        await repository.close(0)
    assert not old.batcher.is_ready
    permit.close()
