"""serving.json: what is understood, what is refused and why, and that it is never half written."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.errors import InvalidConfiguration, InvalidPlan
from service.repository.plan import NO_PLAN, PLAN_NAME, Canary, Plan, parse_plan, read_plan, write_plan
from tests.model_files import write_model
from tests.service.repository.running import serving, started, states

_version = st.integers(1, 999_999_999).map(str)
_alias = st.from_regex(r"[A-Za-z][A-Za-z0-9_-]{0,31}", fullmatch=True).filter(lambda name: name != "canary")
_plans = st.builds(
    Plan,
    is_served=st.booleans(),
    version=st.none() | _version,
    aliases=st.dictionaries(_alias, _version, max_size=4),
    canary=st.none() | st.builds(Canary, version=_version, weight=st.floats(0, 1)),
    shadow=st.none() | _version,
)


@given(_plans)
def test_what_is_written_is_read(plan: Plan) -> None:
    assert parse_plan(plan.model_dump_json().encode(), Path(PLAN_NAME)) == plan


def test_no_file_is_no_plan(tmp_path: Path) -> None:
    assert read_plan(tmp_path) == NO_PLAN


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("{", "document: "),
        ("[]", "document: "),
        ('{"versoin": "1"}', "versoin: "),
        ('{"version": 1}', "version: "),
        ('{"version": "../1"}', "version: "),
        ('{"aliases": {"7": "1"}}', "aliases.7"),
        ('{"aliases": {"a": "0"}}', "aliases.a: "),
        ('{"aliases": {"canary": "1"}}', "the field canary"),
        ('{"canary": {"version": "1"}}', "canary.weight: "),
        ('{"canary": {"version": "1", "weight": 1.01}}', "canary.weight: "),
        ('{"shadow": "latest"}', "shadow: "),
    ],
)
def test_a_plan_that_is_none_is_refused_with_the_field(text: str, complaint: str) -> None:
    with pytest.raises(InvalidPlan, match=PLAN_NAME) as caught:
        parse_plan(text.encode(), Path(PLAN_NAME))
    assert complaint in str(caught.value)


def test_a_plan_that_cannot_be_written_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_plan(tmp_path, Plan(version="1"))

    def refuse(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(OSError, match="no space"):
        write_plan(tmp_path, Plan(version="2"))
    assert read_plan(tmp_path).version == "1"
    assert [path.name for path in tmp_path.iterdir()] == [PLAN_NAME]


async def test_a_bad_plan_keeps_a_service_from_starting(tmp_path: Path) -> None:
    write_model(tmp_path)
    (tmp_path / "tiny" / PLAN_NAME).write_text("{")
    with pytest.raises(InvalidConfiguration, match=PLAN_NAME):
        await started(tmp_path)


async def test_a_bad_plan_changes_nothing_while_serving(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    for version in ("1", "2"):
        write_model(tmp_path, version=version)
    (tmp_path / "tiny" / PLAN_NAME).write_text(json.dumps({"version": "1"}))
    async with serving(tmp_path) as repository:
        (tmp_path / "tiny" / PLAN_NAME).write_text('{"version": "x"}')
        for _ in range(3):
            await repository.look()
        assert repository.resolve().version == "1"
        assert PLAN_NAME in states(repository)["1"]
        assert caplog.text.count("the plan stays as it was") == 1


async def test_a_plan_cannot_be_a_link_that_leads_out(tmp_path: Path) -> None:
    root = tmp_path / "models"
    write_model(root)
    (tmp_path / "outside.json").write_text("{}")
    (root / "tiny" / PLAN_NAME).symlink_to(tmp_path / "outside.json")
    with pytest.raises(InvalidConfiguration, match="leads out"):
        await started(root)


async def test_a_new_model_with_a_bad_plan_is_not_served_until_it_is_mended(tmp_path: Path) -> None:
    """Its highest version may be the one that the plan was to hold back."""
    write_model(tmp_path)
    async with serving(tmp_path) as repository:
        for version in ("1", "2"):
            write_model(tmp_path, name="new", version=version)
        (tmp_path / "new" / PLAN_NAME).write_text('{"version": "1"')
        await repository.look()
        assert [model.name for model in repository.served] == ["tiny"]
        assert all(PLAN_NAME in line.reason for line in repository.index() if line.name == "new")
        (tmp_path / "new" / PLAN_NAME).write_text('{"version": "1"}')
        await repository.look()
        assert repository.resolve("new").version == "1"


def _link_to_itself(path: Path) -> None:
    path.symlink_to(path.name)


def _pipe(path: Path) -> None:
    os.mkfifo(path)


def _folder(path: Path) -> None:
    path.mkdir()


@pytest.mark.parametrize("make", [_link_to_itself, _pipe, _folder])
async def test_a_plan_that_is_no_file_changes_nothing(tmp_path: Path, make: Callable[[Path], None]) -> None:
    write_model(tmp_path, version="1")
    async with serving(tmp_path) as repository:
        make(tmp_path / "tiny" / PLAN_NAME)
        write_model(tmp_path, name="other")
        await repository.look()
        assert repository.resolve("tiny").version == "1"
        assert PLAN_NAME in states(repository)["1"]
        assert repository.resolve("other").version == "1"
