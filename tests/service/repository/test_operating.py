"""What an operator asks: load, unload, rollback, another plan."""

from __future__ import annotations

import asyncio
import shutil
from pathlib import Path
from typing import Any

import pytest

from service.errors import Forbidden, InvalidParameter, ModelNotFound, NotReady
from service.repository import BuiltModel, Canary, Faults, Plan
from service.repository.plan import read_plan, write_plan
from tests.model_files import write_model
from tests.service.repository.running import logits, operating, serving, states, versions


async def never(name: str) -> Faults:
    """What a change that is refused in time does not come to."""
    raise AssertionError(f"{name} was changed")


async def test_rollback_goes_down_and_stays(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2", "3")
    async with operating(tmp_path) as (repository, changes):
        await changes.roll_back("tiny")
        assert repository.resolve().version == "2"
        versions(tmp_path, "4")
        await repository.look()
        assert repository.resolve().version == "2"
        await changes.roll_back("tiny", "latest")
        assert repository.resolve().version == "4"
        await changes.roll_back("tiny", "1")
        assert repository.resolve().version == "1"
        with pytest.raises(InvalidParameter, match="no good version below"):
            await changes.roll_back("tiny")
    async with serving(tmp_path) as restarted:
        assert restarted.resolve().version == "1"


async def test_rollback_passes_over_what_was_refused(tmp_path: Path) -> None:
    versions(tmp_path, "1", "3")
    async with operating(tmp_path) as (repository, changes):
        write_model(tmp_path, version="2", fault="wrong_logits")
        with pytest.raises(InvalidParameter, match="version 2 does not serve"):
            await changes.roll_back("tiny", "2")
        assert repository.resolve().version == "3"
        assert read_plan(tmp_path / "tiny") == Plan()
        with pytest.raises(ModelNotFound, match="'7'"):
            await changes.roll_back("tiny", "7")


async def test_rollback_under_load_fails_nothing(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2")
    async with operating(tmp_path) as (repository, changes):

        async def client() -> list[str]:
            seen: list[str] = []
            while seen.count("1") < 20:
                served = repository.resolve()
                await logits(served)
                seen.append(served.version)
            return seen

        clients = [asyncio.create_task(client()) for _ in range(8)]
        await changes.roll_back("tiny")
        assert repository.resolve().version == "1"
        histories = await asyncio.gather(*clients)
    for seen in histories:
        assert seen[0] == "2"
        assert seen == sorted(seen, reverse=True)  # none met the newer version again


async def test_unload_and_load(tmp_path: Path) -> None:
    versions(tmp_path, "1")
    write_model(tmp_path, name="other")
    async with operating(tmp_path) as (repository, changes):
        await changes.unload("tiny")
        with pytest.raises(ModelNotFound):
            repository.resolve("tiny")
        await repository.look()
        assert [model.name for model in repository.served] == ["other"]
        readiness = [repository.is_ready]
        await changes.load("tiny")
        assert repository.resolve("tiny").version == "1"
        await changes.unload("other")
        await changes.unload("tiny")
        assert [*readiness, repository.is_ready] == [True, False]
        with pytest.raises(NotReady):
            repository.resolve("tiny")


async def test_load_tries_again_what_was_refused(tmp_path: Path) -> None:
    versions(tmp_path, "1")
    async with operating(tmp_path) as (repository, changes):
        write_model(tmp_path, version="2", fault="wrong_logits")
        for _ in range(2):
            with pytest.raises(InvalidParameter, match="version 2 does not serve: "):
                await changes.load("tiny")
            assert repository.resolve().version == "1"
        versions(tmp_path, "2")
        await changes.load("tiny")
        assert repository.resolve().version == "2"
        with pytest.raises(ModelNotFound):
            await changes.load("giant")
        with pytest.raises(ModelNotFound):
            await changes.load("../tiny")


async def test_a_plan_is_taken_whole_or_not_at_all(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2")
    write_model(tmp_path, version="3", fault="wrong_logits")
    async with operating(tmp_path) as (repository, changes):
        good = Plan(version="1", aliases={"mobile": "2"}, canary=Canary(version="2", weight=0.5))
        await changes.arrange("tiny", good)
        assert repository.resolve("tiny", "mobile").version == "2"
        for bad in (Plan(canary=Canary(version="3", weight=0.5)), Plan(aliases={"mobile": "9"})):
            with pytest.raises(InvalidParameter, match="version"):
                await changes.arrange("tiny", bad)
            assert read_plan(tmp_path / "tiny") == good
            assert repository.resolve("tiny", "mobile").version == "2"
            assert repository.resolve("tiny", "stable").version == "1"


async def test_a_repository_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    versions(tmp_path, "1", "2")

    def refuse(*_: object, **__: object) -> None:
        raise OSError(30, "Read-only file system")

    monkeypatch.setattr("service.repository.plan.tempfile.mkstemp", refuse)
    async with operating(tmp_path) as (repository, changes):
        with pytest.raises(Forbidden, match="Read-only file system"):
            await changes.roll_back("tiny")
        assert repository.resolve().version == "2"
        await changes.load("tiny")


async def test_requests_that_ask_at_once_take_turns(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2", "3")
    async with operating(tmp_path) as (repository, changes):
        await asyncio.gather(
            changes.roll_back("tiny", "1"),
            repository.look(),
            changes.load("tiny"),
            repository.look(),
        )
        assert states(repository)["1"] == "READY"
        assert repository.resolve().version == "1"


async def test_a_rollback_passes_over_bad_versions_that_nobody_had_loaded(tmp_path: Path) -> None:
    versions(tmp_path, "1", "4")
    write_model(tmp_path, version="2", fault="wrong_logits")
    write_model(tmp_path, version="3", fault="truncated")
    async with operating(tmp_path) as (repository, changes):
        await changes.roll_back("tiny")
        assert repository.resolve().version == "1"
        assert read_plan(tmp_path / "tiny").version == "1"


async def test_a_rollback_does_not_go_to_a_version_on_trial(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2", "3")
    async with operating(tmp_path) as (repository, changes):
        await changes.arrange("tiny", Plan(version="3", shadow="2"))
        await changes.roll_back("tiny")
        assert repository.resolve().version == "1"


async def test_the_version_that_serves_is_said_whatever_is_called_stable(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2", "3")
    async with operating(tmp_path) as (repository, changes):
        await changes.arrange("tiny", Plan(aliases={"stable": "3"}))
        await changes.roll_back("tiny")
        assert repository.resolve().version == "2"


async def test_a_refused_change_moves_no_request_meanwhile(tmp_path: Path) -> None:
    """A bad version is found out before anything is written: neither this process nor another follows it."""
    versions(tmp_path, "1", "2", "3")
    write_model(tmp_path, version="4", fault="wrong_logits")
    async with operating(tmp_path) as (repository, changes):
        before = repository.resolve()
        seen: list[str] = []

        async def note(name: str) -> Faults:
            seen.append(read_plan(tmp_path / "tiny").model_dump_json())
            return await repository.look_alone(name)

        changes.spread = note
        for change in (
            changes.roll_back("tiny", "4"),
            changes.arrange("tiny", Plan(version="4")),
            changes.arrange("tiny", Plan(aliases={"old": "1"}, canary=Canary(version="4", weight=1))),
        ):
            with pytest.raises(InvalidParameter, match="version 4 does not serve"):
                await change
        assert seen == []
        assert repository.resolve() is before
        assert [served.version for served in repository.loaded("tiny")] == ["3"]


async def test_a_bad_version_that_nobody_names_stands_in_the_way_of_no_change(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2")
    write_model(tmp_path, version="3", fault="wrong_logits")
    async with operating(tmp_path) as (repository, changes):
        await changes.arrange("tiny", Plan(aliases={"mobile": "1"}))
        assert repository.resolve("tiny", "mobile").version == "1"
        await changes.roll_back("tiny")
        assert repository.resolve().version == "1"
        await changes.roll_back("tiny", "latest")
        assert repository.resolve().version == "2"


async def test_a_plan_that_leaves_no_version_to_be_live_is_refused(tmp_path: Path) -> None:
    """It would keep the next process from starting."""
    versions(tmp_path, "2")
    write_model(tmp_path, version="1", fault="wrong_logits")
    async with operating(tmp_path) as (repository, changes):
        changes.spread = never
        with pytest.raises(InvalidParameter, match="no version that may be live"):
            await changes.arrange("tiny", Plan(canary=Canary(version="2", weight=0.5)))
        assert read_plan(tmp_path / "tiny") == Plan()
        assert repository.resolve("tiny", "stable").version == "2"


async def test_of_two_changes_at_once_none_is_lost(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2", "3")
    write_model(tmp_path, version="4", fault="wrong_logits")
    async with operating(tmp_path) as (repository, changes):
        outcomes = await asyncio.gather(
            changes.arrange("tiny", Plan(version="3", aliases={"mobile": "1"})),
            changes.arrange("tiny", Plan(shadow="4")),
            changes.roll_back("tiny"),
            return_exceptions=True,
        )
        assert [type(outcome) for outcome in outcomes] == [type(None), InvalidParameter, type(None)]
        assert read_plan(tmp_path / "tiny") == Plan(version="2", aliases={"mobile": "1"})
        assert repository.resolve().version == "2"


async def test_a_plan_that_somebody_else_writes_meanwhile_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By hand, or through another worker, while the versions of a change are being loaded."""
    versions(tmp_path, "1", "2", "3")
    theirs = Plan(version="2")
    async with operating(tmp_path) as (repository, changes):
        build = repository._build

        def build_slowly(*arguments: Any) -> BuiltModel:
            write_plan(tmp_path / "tiny", theirs)
            return build(*arguments)

        monkeypatch.setattr(repository, "_build", build_slowly)
        with pytest.raises(InvalidParameter, match="somebody else"):
            await changes.roll_back("tiny", "1")
        assert read_plan(tmp_path / "tiny") == theirs


async def test_what_another_process_cannot_follow_is_taken_back(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2")
    async with operating(tmp_path) as (repository, changes):

        async def spread(name: str) -> Faults:
            version = read_plan(tmp_path / name).version
            return {**await repository.look_alone(name), **({version: "no memory there"} if version else {})}

        changes.spread = spread
        with pytest.raises(InvalidParameter, match="no memory there"):
            await changes.roll_back("tiny")
        assert read_plan(tmp_path / "tiny") == Plan()
        assert repository.resolve().version == "2"


async def test_a_model_whose_folder_is_gone_can_be_unloaded(tmp_path: Path) -> None:
    versions(tmp_path, "1")
    write_model(tmp_path, name="old")
    async with operating(tmp_path) as (repository, changes):
        shutil.rmtree(tmp_path / "old")
        await repository.look()
        assert repository.resolve("old").version == "1"
        await changes.unload("old")
        with pytest.raises(ModelNotFound):
            repository.resolve("old")
        assert [line.name for line in repository.index()] == ["tiny"]
        with pytest.raises(ModelNotFound):
            await changes.unload("old")
        write_model(tmp_path, name="old", version="2")
        await repository.look()
        assert repository.resolve("old").version == "2"


async def test_changes_to_a_repository_that_is_away_say_so(tmp_path: Path) -> None:
    root = tmp_path / "models"
    versions(root, "1", "2")
    async with operating(root) as (repository, changes):
        root.rename(tmp_path / "away")
        for change in (
            changes.roll_back("tiny"),
            changes.load("tiny"),
            changes.unload("tiny"),
        ):
            with pytest.raises(NotReady, match="cannot be changed now: no model repository"):
                await change
        assert repository.resolve().version == "2"
