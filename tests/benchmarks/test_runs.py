"""The page comes from real runs, none of which is done twice."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from benchmarks import runs
from benchmarks.runs import Case


@pytest.mark.e2e
@pytest.mark.timeout(300)
def test_a_run_becomes_a_page_and_is_not_done_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(runs, "CASES", (Case("digits", "--epochs 1 --limit 200 --max-accuracy-drop 100"),))
    page = tmp_path / "runs.md"
    words = ["--folder", str(tmp_path / "kept"), "--write", str(page)]
    runs.main(words)
    text = page.read_text()
    assert "python -m model_export run --dataset digits --epochs 1" in text
    assert re.search(r"\| digits \| article_cnn \| 359 (\| \d+\.\d\d % ){3}\| 1 epochs", text)
    assert "| digits | 53,450 → 53,002 | 347,392 |" in text
    assert re.search(r"\| digits \| int8 \| \d+% of [\d,]+ bytes \| nothing \| .* times as fast", text)
    monkeypatch.setattr(subprocess, "run", None)  # nothing can be started any more
    page.unlink()
    runs.main(words)
    assert page.read_text() == text


@pytest.mark.parametrize(
    ("words", "complaint"),
    [(["mnist"], "TEST_DATA_DIR"), (["imagenet"], "no data set imagenet; there are digits, mnist, cifar10")],
)
def test_what_is_missing_is_asked_for(
    words: list[str], complaint: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TEST_DATA_DIR", raising=False)
    with pytest.raises(SystemExit):
        runs.main(words)
    assert complaint in capsys.readouterr().err
