"""A comparison goes on where it was stopped, and begins anew when something it depends on has changed."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from benchmarks.folding.journal import Journal, digest_of


@dataclass
class Result:
    network: str
    error: float


def journal_of(path: Path, digest: str) -> Journal[Result]:
    return Journal(path, digest, Result)


def result(network: str) -> Result:
    return Result(network, 1e-16)


def test_a_journal_goes_on_where_it_was(tmp_path: Path) -> None:
    path = tmp_path / "made" / "journal.jsonl"
    journal_of(path, "a digest").add(result("first"))
    journal = journal_of(path, "a digest")
    journal.add(result("second"))
    assert journal_of(path, "a digest").results == journal.results == [result("first"), result("second")]


def test_a_line_that_was_cut_off_is_measured_again(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal_of(path, "a digest").add(result("first"))
    with path.open("a") as file:
        file.write('{"tool": "a to')
    journal = journal_of(path, "a digest")
    journal.add(result("second"))
    assert journal_of(path, "a digest").results == [result("first"), result("second")]


def test_a_journal_of_something_else_is_begun_anew(tmp_path: Path) -> None:
    path = tmp_path / "journal.jsonl"
    journal_of(path, "a digest").add(result("first"))
    assert journal_of(path, "another").results == []
    assert journal_of(path, "a digest").results == []


def test_the_digest_is_of_the_sources_and_the_versions(tmp_path: Path) -> None:
    source = tmp_path / "source.py"
    source.write_text("1")
    first = digest_of([tmp_path], ["one 1.0"])
    assert digest_of([tmp_path], ["one 1.0"]) == first
    assert digest_of([tmp_path], ["one 1.1"]) != first
    source.write_text("2")
    assert digest_of([tmp_path], ["one 1.0"]) != first
