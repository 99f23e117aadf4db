"""The comparison takes real runs, does none twice, and says what its numbers say."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from benchmarks import planning
from benchmarks.planning import Outcome, Trial, config_for, measure, page

QUIET = Console(quiet=True)


@pytest.mark.usefixtures("one_thread")
def test_a_trial_is_a_real_run_and_is_not_done_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    trial = Trial("digits", "planned", seed=3, epochs=1)
    config = config_for(trial, None, limit=128)
    assert (config.train.seed, config.train.normalization, config.train.epochs) == (3, "planned", 1)
    outcome = measure(trial, config, tmp_path, QUIET)
    assert outcome.pictures == 359
    assert 0.1 < outcome.trained < 1
    assert (tmp_path / trial.name / "plan.json").is_file()
    assert (tmp_path / trial.name / "calibration.json").is_file()
    monkeypatch.setattr(planning, "Run", None)  # nothing can be trained any more
    assert measure(trial, config, tmp_path, QUIET) == outcome


def outcomes(differences: list[float]) -> list[Outcome]:
    article = [Trial("mnist", "article", seed, epochs=3) for seed in range(len(differences))]
    planned = [replace(trial, normalization="planned") for trial in article]
    gains = [0.0] * len(article) + [difference / 100 for difference in differences]
    return [
        Outcome(trial, 10_000, 0.5, 0.9 + gain)
        for trial, gain in zip([*article, *planned], gains, strict=True)
    ]


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.1, 0.0, 2.0], "planned is at least as good with every seed"),
        ([-0.1, -1.0], "the article's is at least as good with every seed"),
        ([-1.0, 3.0], "the seeds disagree; on average planned has +1.00"),
    ],
)
def test_the_page_says_who_is_ahead(differences: list[float], verdict: str) -> None:
    text = page(outcomes(differences))
    assert verdict in text
    assert f"{differences[0]:+.2f}, " in text
    assert "| mnist | 3 | 10,000 | 50.00 % (50.00 – 50.00) | 90.00 % (90.00 – 90.00) | 50.00 %" in text


def test_data_that_are_not_there_are_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("TEST_DATA_DIR", raising=False)
    with pytest.raises(SystemExit):
        planning.main(["mnist"])
    assert "TEST_DATA_DIR is not set" in capsys.readouterr().err
