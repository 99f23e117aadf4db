"""Routing: aliases, the canary's share and its stickiness, and what a plan means for what is loaded."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import ModelNotFound
from service.repository.routing import share
from tests.model_files import write_model
from tests.service.fakes import until
from tests.service.repository.running import serving, states, versions

KEYS = [b"client-%d" % number for number in range(2000)]


def arrange(root: Path, **plan: object) -> None:
    """Write the plan of the model ``tiny``."""
    (root / "tiny" / "serving.json").write_text(json.dumps(plan))


async def test_only_the_live_version_is_loaded_without_a_plan(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2", "3")
    async with serving(tmp_path) as repository:
        assert [served.version for served in repository.loaded("tiny")] == ["3"]
        assert repository.resolve("tiny", "stable").version == "3"
        with pytest.raises(ModelNotFound, match="there is: 3, stable"):
            repository.resolve("tiny", "2")
        assert states(repository)["2"] == "UNAVAILABLE not needed: a higher version serves"


async def test_a_pinned_version_is_the_highest_that_serves(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2", "3")
    arrange(tmp_path, version="2")
    async with serving(tmp_path) as repository:
        assert repository.resolve().version == "2"
        versions(tmp_path, "4")
        await repository.look()
        assert repository.resolve().version == "2"
        assert states(repository)["4"] == "UNAVAILABLE version 2 is the highest that may serve"
        arrange(tmp_path)
        await repository.look()
        assert repository.resolve().version == "4"


async def test_a_bad_pinned_version_gives_way_downwards_never_upwards(tmp_path: Path) -> None:
    versions(tmp_path, "1", "3")
    write_model(tmp_path, version="2", fault="wrong_logits")
    arrange(tmp_path, version="2")
    async with serving(tmp_path) as repository:
        assert repository.resolve().version == "1"


async def test_aliases_keep_their_versions_loaded(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2", "3")
    arrange(tmp_path, aliases={"mobile": "1", "stable": "2"})
    async with serving(tmp_path) as repository:
        answers = {name: repository.resolve("tiny", name).version for name in ("mobile", "stable", "1", "3")}
        assert answers == {"mobile": "1", "stable": "2", "1": "1", "3": "3"}
        assert repository.resolve().version == "3"
        roles = {line.version: line.roles for line in repository.index()}
        assert roles == {"3": ("live",), "2": ("stable",), "1": ("mobile",)}
        arrange(tmp_path)
        await repository.look()
        assert [served.version for served in repository.loaded("tiny")] == ["3"]
        await until(lambda: not repository._retiring)


async def test_an_alias_keeps_its_version_until_the_next_one_is_good(tmp_path: Path) -> None:
    versions(tmp_path, "1", "3")
    write_model(tmp_path, version="2", fault="wrong_logits")
    arrange(tmp_path, aliases={"mobile": "1"})
    async with serving(tmp_path) as repository:
        arrange(tmp_path, aliases={"mobile": "2"})
        await repository.look()
        await repository.look()
        assert repository.resolve("tiny", "mobile").version == "1"
        versions(tmp_path, "2")
        await repository.look()
        assert repository.resolve("tiny", "mobile").version == "2"


async def test_a_canary_gets_its_share_and_keeps_its_clients(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2")
    arrange(tmp_path, canary={"version": "2", "weight": 0.2})
    async with serving(tmp_path) as repository:
        assert repository.resolve("tiny", "canary").version == "2"
        assert repository.resolve("tiny", "stable").version == "1"

        def chosen() -> set[bytes]:
            return {key for key in KEYS if repository.resolve("tiny", None, key).version == "2"}

        few = chosen()
        assert few == chosen()
        assert 0.15 < len(few) / len(KEYS) < 0.25
        arrange(tmp_path, canary={"version": "2", "weight": 0.5})
        await repository.look()
        assert few < chosen()
        arrange(tmp_path, canary={"version": "2", "weight": 0})
        await repository.look()
        assert not chosen()


async def test_a_canary_is_not_promoted_by_being_the_highest(tmp_path: Path) -> None:
    versions(tmp_path, "1")
    arrange(tmp_path, canary={"version": "2", "weight": 0.5})
    async with serving(tmp_path) as repository:
        versions(tmp_path, "2")
        await repository.look()
        assert repository.resolve("tiny", "stable").version == "1"
        assert repository.resolve("tiny", "canary").version == "2"
        arrange(tmp_path, version="2")
        await repository.look()
        assert repository.resolve().version == "2"


async def test_a_canary_that_stopped_gets_nothing(tmp_path: Path) -> None:
    versions(tmp_path, "1", "2")
    arrange(tmp_path, canary={"version": "2", "weight": 1})
    async with serving(tmp_path) as repository:
        await repository.resolve("tiny", "canary").batcher.close(1)
        assert {repository.resolve("tiny", None, key).version for key in KEYS} == {"1"}


async def test_a_bad_canary_gets_nothing(tmp_path: Path) -> None:
    versions(tmp_path, "1")
    write_model(tmp_path, version="2", fault="wrong_logits")
    arrange(tmp_path, canary={"version": "2", "weight": 1})
    async with serving(tmp_path) as repository:
        assert {repository.resolve("tiny", None, key).version for key in KEYS} == {"1"}
        with pytest.raises(ModelNotFound):
            repository.resolve("tiny", "canary")


@given(st.binary(max_size=64), st.sampled_from(["2", "3"]))
def test_a_share_is_the_same_every_time_and_less_than_one(key: bytes, version: str) -> None:
    assert share("tiny", version, key) == share("tiny", version, key)
    assert 0 <= share("tiny", version, key) < 1


def test_shares_are_even_and_another_canary_draws_anew() -> None:
    drawn = {version: [share("tiny", version, key) for key in KEYS] for version in ("2", "3")}
    for shares in drawn.values():
        tenths = [sum(low / 10 <= each < (low + 1) / 10 for each in shares) for low in range(10)]
        assert all(140 < count < 260 for count in tenths)
    both = sum(two < 0.5 and three < 0.5 for two, three in zip(drawn["2"], drawn["3"], strict=True))
    assert 400 < both < 600
