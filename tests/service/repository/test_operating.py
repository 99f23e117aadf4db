"""What an operator asks: load, unload, rollback, another plan."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from service.errors import Forbidden, InvalidParameter, ModelNotFound, NotReady
from service.repository import Canary, Plan
from service.repository.plan import read_plan
from tests.model_files import write_model
from tests.service.repository.running import logits, serving, states, versions


async def test_rollback_goes_down_and_stays(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2", "3")
    async with serving(tmp_path) as repository:
        assert await repository.rollback("tiny") == "2"
        versions(tmp_path, "4")
        await repository.look()
        assert repository.resolve().version == "2"
        assert await repository.rollback("tiny", "latest") == "4"
        assert await repository.rollback("tiny", "1") == "1"
        with pytest.raises(InvalidParameter, match="no good version below"):
            await repository.rollback("tiny")
    async with serving(tmp_path) as restarted:
        assert restarted.resolve().version == "1"


async def test_rollback_passes_over_what_was_refused(tmp_path: Path) -> None:
    versions(tmp_path, "1", "3")
    async with serving(tmp_path) as repository:
        write_model(tmp_path, version="2", fault="wrong_logits")
        with pytest.raises(InvalidParameter, match="version 2 does not serve"):
            await repository.rollback("tiny", "2")
        assert repository.resolve().version == "3"
        assert read_plan(tmp_path / "tiny") == Plan()
        with pytest.raises(ModelNotFound, match="'7'"):
            await repository.rollback("tiny", "7")


async def test_rollback_under_load_fails_nothing(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2")
    async with serving(tmp_path) as repository:

        async def client() -> list[str]:
            seen: list[str] = []
            while seen.count("1") < 20:
                served = repository.resolve()
                await logits(served)
                seen.append(served.version)
            return seen

        clients = [asyncio.create_task(client()) for _ in range(8)]
        assert await repository.rollback("tiny") == "1"
        histories = await asyncio.gather(*clients)
    for seen in histories:
        assert seen[0] == "2"
        assert seen == sorted(seen, reverse=True)  # none met the newer version again


async def test_unload_and_load(tmp_path: Path) -> None:
    versions(tmp_path, "1")
    write_model(tmp_path, name="other")
    async with serving(tmp_path) as repository:
        await repository.unload("tiny")
        with pytest.raises(ModelNotFound):
            repository.resolve("tiny")
        await repository.look()
        assert [model.name for model in repository.served] == ["other"]
        readiness = [repository.is_ready]
        await repository.load("tiny")
        assert repository.resolve("tiny").version == "1"
        await repository.unload("other")
        await repository.unload("tiny")
        assert [*readiness, repository.is_ready] == [True, False]
        with pytest.raises(NotReady):
            repository.resolve("tiny")


async def test_load_tries_again_what_was_refused(tmp_path: Path) -> None:
    versions(tmp_path, "1")
    async with serving(tmp_path) as repository:
        write_model(tmp_path, version="2", fault="wrong_logits")
        for _ in range(2):
            with pytest.raises(InvalidParameter, match="version 2 does not serve: "):
                await repository.load("tiny")
            assert repository.resolve().version == "1"
        versions(tmp_path, "2")
        await repository.load("tiny")
        assert repository.resolve().version == "2"
        with pytest.raises(ModelNotFound):
            await repository.load("giant")
        with pytest.raises(ModelNotFound):
            await repository.load("../tiny")


async def test_a_plan_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2")
    write_model(tmp_path, version="3", fault="wrong_logits")
    async with serving(tmp_path) as repository:
        good = Plan(version="1", aliases={"mobile": "2"}, canary=Canary(version="2", weight=0.5))
        await repository.arrange("tiny", good)
        assert repository.resolve("tiny", "mobile").version == "2"
        for bad in (Plan(canary=Canary(version="3", weight=0.5)), Plan(aliases={"mobile": "9"})):
            with pytest.raises(InvalidParameter, match="version"):
                await repository.arrange("tiny", bad)
            assert read_plan(tmp_path / "tiny") == good
            assert repository.resolve("tiny", "mobile").version == "2"
            assert repository.resolve("tiny", "stable").version == "1"


async def test_a_repository_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions(tmp_path, "1", "2")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("service.repository.plan.tempfile.mkstemp", refuse)
    async with serving(tmp_path) as repository:
        with pytest.raises(Forbidden, match="Read-only file system"):
            await repository.rollback("tiny")
        assert repository.resolve().version == "2"
        await repository.load("tiny")


async def test_requests_that_ask_at_once_take_turns(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2", "3")
    async with serving(tmp_path) as repository:
        await asyncio.gather(
            repository.rollback("tiny", "1"), repository.look(), repository.load("tiny"), repository.look()
        )
        assert states(repository)["1"] == "READY"
        assert repository.resolve().version == "1"
