"""The repository itself: pins, targets and documents that hold together."""

from __future__ import annotations

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from deploy.audit.pins import read_pins

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
README = (ROOT / "README.md").read_text()
MAKEFILE = (ROOT / "Makefile").read_text()
TARGETS = set(re.findall(r"^([a-z-]+):.*##", MAKEFILE, re.MULTILINE))
PINS = read_pins(ROOT / "constraints.txt")


def _sources() -> list[Path]:
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"],  # noqa: S607  # the one on PATH
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    paths = [ROOT / line for line in listed.stdout.splitlines()]
    return [
        path
        for path in paths
        if path.is_file() and path.suffix in {"", ".py", ".md", ".toml", ".txt", ".yaml"}
    ]


def test_every_pin_is_exact_and_says_nothing_of_where_it_came_from() -> None:
    assert all(re.fullmatch(r"[0-9][0-9a-z.!]*", version) for version in PINS.values()), PINS
    assert not re.search(r"https?:|^--|@|\+cpu|hash", (ROOT / "constraints.txt").read_text(), re.MULTILINE)


EXTRAS = sorted(PROJECT["optional-dependencies"].keys() - {"gpu"})


@pytest.mark.parametrize("extra", [None, *EXTRAS])
def test_every_dependency_is_pinned_within_its_range(extra: str | None) -> None:
    listed = PROJECT["dependencies"] if extra is None else PROJECT["optional-dependencies"][extra]
    for requirement in map(Requirement, listed):
        name = canonicalize_name(requirement.name)
        assert requirement.specifier.contains(PINS[name]), f"{name}=={PINS[name]}"


def test_every_target_is_phony_and_explained() -> None:
    phony = set(re.findall(r"^\.PHONY: ([a-z-]+)", MAKEFILE, re.MULTILINE))
    assert phony == TARGETS


def test_help_lists_every_target() -> None:
    shown = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True)  # noqa: S607
    assert set(re.findall(r"^  make ([a-z-]+)", shown.stdout, re.MULTILINE)) == TARGETS


def test_a_python_that_is_too_old_is_refused_with_the_remedy(tmp_path: Path) -> None:
    old = tmp_path / "python"
    old.write_text("#!/bin/sh\nexit 1\n")
    old.chmod(0o755)
    command = ["make", "setup", f"PYTHON={old}", f"VENV={tmp_path / 'venv'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)  # noqa: S603
    assert done.returncode != 0
    assert "needs Python 3.11 or newer" in done.stderr
    assert not (tmp_path / "venv").exists()


def test_the_readme_names_only_targets_and_places_that_exist() -> None:
    targets = set(re.findall(r"(?:^|`)make ([a-z-]+)", README, re.MULTILINE))
    assert {"serve", "test"} <= targets <= TARGETS
    places = re.findall(r"`((?:service|model_export|loadtest)/[a-z_/.]*)`", README)
    places += re.findall(r"\]\(([^)#:]+)\)", README)
    assert len(places) > 10
    missing = [place for place in places if not (ROOT / place).exists()]
    assert not missing


def test_every_room_is_in_the_readme() -> None:
    """Where does this line live? The table must know every package of the service."""
    rooms = {path.parent.name for path in (ROOT / "service").glob("*/__init__.py")}
    assert {room for room in rooms if f"`service/{room}/`" not in README} == set()


def test_nothing_unfinished_and_nothing_of_one_machine() -> None:
    marks = re.compile(r"\b(TO" + r"DO|FIX" + r"ME|XX" + r"X)\b|/(?:work|root|home)/|index-url[ =]https?:")
    found = {
        f"{path.relative_to(ROOT)}: {match[0]}"
        for path in _sources()
        if (match := marks.search(path.read_text(encoding="utf-8")))
    }
    assert found == set()


def test_a_silenced_check_has_its_reason() -> None:
    bare = re.compile(r"#\s*(?:type: ignore|noqa)(?:\[[^]]*\]|: [A-Z0-9, ]+)?\s*$", re.MULTILINE)
    shipped = [path for path in _sources() if path.suffix == ".py" and "tests" not in path.parts]
    assert [path for path in shipped if bare.search(path.read_text())] == []
