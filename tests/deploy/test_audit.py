"""The audit finds what is wrong, and never calls well what it could not look at."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import sys
import zipfile
from datetime import UTC, datetime, timedelta
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest

from deploy.audit.__main__ import main, report
from deploy.audit.advisories import concerns, examine_advisories
from deploy.audit.installation import examine_installation
from deploy.audit.outcome import Outcome, Verdict, judged, unchecked
from deploy.audit.pins import NotPinned, read_pins
from deploy.audit.programs import examine_database, examine_index

NOW = datetime(2026, 11, 23, tzinfo=UTC)
MONTH = timedelta(days=30)


def advisory(events: list[dict[str, str]], **changes: Any) -> dict[str, Any]:
    spans = {"type": "ECOSYSTEM", "events": events}
    package = {"ecosystem": "PyPI", "name": "Some.Thing"}
    whole = {"id": "PYSEC-1", "modified": "2026-11-20T00:00:00Z", "summary": "it breaks"}
    return {**whole, "affected": [{"package": package, "ranges": [spans]}], **changes}


def export(folder: Path, *advisories: dict[str, Any]) -> Path:
    path = folder / "all.zip"
    with zipfile.ZipFile(path, "w") as archive:
        for number, each in enumerate(advisories):
            archive.writestr(f"{number}.json", json.dumps(each))
    return path


# Pins.


def test_the_projects_own_pins_are_read() -> None:
    pins = read_pins(Path("constraints.txt"))
    assert pins["torch"] == "2.13.0"
    assert len(pins) > 100


@pytest.mark.parametrize("line", ["numpy", "numpy>=2", "numpy==2.*", "numpy==1,==2", "-r other.txt"])
def test_a_line_that_pins_nothing_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "constraints.txt"
    path.write_text(f"# pins\npillow==13.0\n{line}\n")
    with pytest.raises(NotPinned, match=r"constraints\.txt:3"):
        read_pins(path)
    out = io.StringIO()
    assert main(["--constraints", str(path)], out) == Verdict.FOUND
    assert "constraints.txt:3" in out.getvalue()


# Advisories.


@pytest.mark.parametrize(
    ("version", "is_concerned"),
    [
        ("0.9", False),
        ("1.0", True),
        ("1.9.9", True),
        ("1.10", True),
        ("2.0", False),
        ("3.0", True),
        ("4", False),
    ],
)
def test_versions_are_compared_as_versions(version: str, is_concerned: bool) -> None:
    events = [{"introduced": "1.0"}, {"fixed": "2.0"}, {"introduced": "3.0"}, {"last_affected": "3.5"}]
    assert concerns(advisory(events), "some-thing", version) is is_concerned


def test_others_packages_ecosystems_and_commits_are_no_concern() -> None:
    always = [{"introduced": "0"}]
    assert concerns(advisory(always), "some-thing", "1")
    assert not concerns(advisory(always), "something", "1")
    for change in ({"ecosystem": "npm"}, {"name": "other"}):
        other = advisory(always)
        other["affected"][0]["package"] |= change
        assert not concerns(other, "some-thing", "1")
    commits = advisory(always)
    commits["affected"][0]["ranges"][0]["type"] = "GIT"
    assert not concerns(commits, "some-thing", "1")
    commits["affected"][0]["versions"] = ["1"]
    assert concerns(commits, "some-thing", "1")


@pytest.mark.parametrize("is_zip", [True, False])
def test_a_known_weakness_of_a_pin_is_found(tmp_path: Path, is_zip: bool) -> None:
    source = export(tmp_path, advisory([{"introduced": "0"}, {"fixed": "2"}]))
    if not is_zip:
        zipfile.ZipFile(source).extractall(tmp_path / "folder")
        source = tmp_path / "folder"
    found = examine_advisories({"some-thing": "1.5", "other": "1"}, source, NOW, MONTH)
    assert found.verdict is Verdict.FOUND
    assert found.findings == ("some-thing 1.5: PYSEC-1 it breaks",)
    mended = examine_advisories({"some-thing": "2", "other": "1"}, source, NOW, MONTH)
    assert mended.verdict is Verdict.OK
    assert "2 pins against 1 advisories" in mended.words


def test_what_was_withdrawn_counts_no_more(tmp_path: Path) -> None:
    withdrawn = advisory([{"introduced": "0"}], withdrawn="2026-01-01T00:00:00Z")
    source = export(tmp_path, withdrawn, advisory([{"introduced": "9"}]))
    assert examine_advisories({"some-thing": "1"}, source, NOW, MONTH).verdict is Verdict.OK


def test_an_old_export_finds_weaknesses_but_vouches_for_nothing(tmp_path: Path) -> None:
    source = export(tmp_path, advisory([{"introduced": "0"}, {"fixed": "2"}]))
    later = NOW + timedelta(days=60)
    assert examine_advisories({"some-thing": "1"}, source, later, MONTH).verdict is Verdict.FOUND
    old = examine_advisories({"some-thing": "2"}, source, later, MONTH)
    assert old.verdict is Verdict.UNCHECKED
    assert "older than 30 days" in old.words


@pytest.mark.parametrize("content", [b"", b"no zip", None])
def test_an_export_that_says_nothing_vouches_for_nothing(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "all.zip"
    if content is not None:
        path.write_bytes(content)
    assert examine_advisories({"pillow": "13"}, path, NOW, MONTH).verdict is Verdict.UNCHECKED
    assert examine_advisories({"pillow": "13"}, export(tmp_path), NOW, MONTH).verdict is Verdict.UNCHECKED


# What is installed.


def install(folder: Path, name: str, version: str, content: bytes = b"code") -> Path:
    """A distribution of one file."""
    info = folder / f"{name}-{version}.dist-info"
    info.mkdir()
    (folder / f"{name}.py").write_bytes(content)
    digest = base64.urlsafe_b64encode(hashlib.sha256(content).digest()).rstrip(b"=").decode()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    (info / "RECORD").write_text(f"{name}.py,sha256={digest},{len(content)}\n{info.name}/RECORD,,\n")
    return folder / f"{name}.py"


def test_what_is_installed_is_compared_with_pins_and_hashes(tmp_path: Path) -> None:
    pins = {"good": "1.0", "built": "2.0"}
    file = install(tmp_path, "good", "1.0")
    install(tmp_path, "built", "2.0+cpu")
    install(tmp_path, "nvidia-cublas", "13.1")
    sound = examine_installation(pins, distributions(path=[str(tmp_path)]))
    assert (sound.verdict, sound.findings) == (Verdict.OK, ())
    assert "3 packages and 3 of their files" in sound.words
    file.write_bytes(b"Code")
    install(tmp_path, "stranger", "1")
    found = examine_installation({**pins, "built": "2.1"}, distributions(path=[str(tmp_path)]))
    assert found.findings == (
        "built 2.0+cpu is installed, and 2.1 is pinned",
        "good: good.py is not as it was installed; install good anew",
        "stranger 1 is installed and has no pin",
    )
    file.unlink()
    assert "good.py" in examine_installation(pins, distributions(path=[str(tmp_path)])).findings[0]


# Programs.


def program(folder: Path, out: object, err: str = "", status: int = 0) -> list[str]:
    """One that says this."""
    path = folder / "program.py"
    text = out if isinstance(out, str) else json.dumps(out)
    path.write_text(
        f"import sys\nsys.stdout.write({text!r})\nsys.stderr.write({err!r})\nsys.exit({status})\n"
    )
    return [sys.executable, str(path)]


def test_what_pip_audit_says_is_passed_on(tmp_path: Path) -> None:
    weak = {"id": "PYSEC-2", "fix_versions": ["1.1", "2.0"]}
    dependencies = [
        {"name": "a", "version": "1", "vulns": []},
        {"name": "b", "version": "1", "vulns": [weak]},
    ]
    said = program(tmp_path, {"dependencies": dependencies[:1]})
    assert examine_database(Path("constraints.txt"), said).verdict is Verdict.OK
    found = examine_database(
        Path("constraints.txt"), program(tmp_path, {"dependencies": dependencies}, "", 1)
    )
    assert found.findings == ("b 1: PYSEC-2, mended in 1.1, 2.0",)


def test_withdrawn_releases_are_found(tmp_path: Path) -> None:
    chosen = [{"metadata": {"name": "a", "version": "1"}, "is_yanked": True}]
    found = examine_index(Path("constraints.txt"), program(tmp_path, {"install": chosen}))
    assert found.findings == ("a 1 was withdrawn by its makers",)
    chosen[0]["is_yanked"] = False
    assert examine_index(Path("x"), program(tmp_path, {"install": chosen})).verdict is Verdict.OK


@pytest.mark.parametrize("examine", [examine_database, examine_index])
@pytest.mark.parametrize("status", [0, 1])
def test_who_gets_no_answer_has_checked_nothing(tmp_path: Path, examine: Any, status: int) -> None:
    outcome = examine(Path("constraints.txt"), program(tmp_path, "", "busy\nno way to the network", status))
    assert outcome.verdict is Verdict.UNCHECKED
    assert "no way to the network" in outcome.words


# The report.


@pytest.mark.parametrize(
    ("outcomes", "status"),
    [
        ([judged("a", "", [])], 0),
        ([judged("a", "", []), unchecked("b", "no network")], 2),
        ([unchecked("b", "no network"), judged("a", "", ["weak"]), judged("c", "", [])], 1),
    ],
)
def test_only_what_was_looked_at_and_found_well_is_well(outcomes: list[Outcome], status: int) -> None:
    out = io.StringIO()
    assert report(iter(outcomes), out) == status
    assert out.getvalue().count("NOT CHECKED") == sum(each.verdict is Verdict.UNCHECKED for each in outcomes)
    assert ("weak" in out.getvalue()) == (status == 1)
