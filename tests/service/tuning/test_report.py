"""What a search leaves behind: both rates in the settings, and nothing written that is not confirmed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from service.artifact import Precision
from service.errors import InvalidConfiguration
from service.settings import load_settings
from service.tuning.candidates import Candidate
from service.tuning.measuring import Point
from service.tuning.objective import parse_objective
from service.tuning.process import Stages
from service.tuning.report import Report, ReportLost, prepare
from service.tuning.search import Outcome, Trial
from service.tuning.subject import Subject

OBJECTIVE = parse_objective("p99<50ms")
SUBJECT = Subject("tiny", "1", {}, {}, {}, Precision.FP32)


def point(images_per_s: float, offered_per_s: float | None = None, excess: float = 0.5) -> Point:
    latencies = {50.0: 10.0, 99.0: 50 * excess}
    stages = Stages({}, {}, 8, 1, 1)
    return Point(8, offered_per_s, images_per_s, latencies, excess, 0, None, stages)


def trial(candidate: Candidate, *images_per_s: float) -> Trial:
    first, *rounds = [[point(each)] for each in images_per_s]
    return Trial(candidate, first, rounds)


START = trial(Candidate(), 1000, 1000, 1000, 1000)
FASTER = trial(Candidate(workers=2), 1500, 1500, 1500, 1500)


def report(outcome: Outcome) -> Report:
    return Report(SUBJECT, OBJECTIVE, outcome, None, 2)


def test_settings_quote_the_rate_of_the_closed_and_that_of_the_open_loop(tmp_path: Path) -> None:
    arrivals = [point(750, 752), point(900, 901), point(1000, 1099, excess=2)]
    report(Outcome(START, FASTER, [START, FASTER], arrivals=arrivals)).write(tmp_path)
    text = (tmp_path / "settings.env").read_text()
    assert "1,500 images/s for clients that wait for each answer" in text
    assert "901 images/s for independent clients; plan with this" in text
    assert load_settings(["--settings", str(tmp_path / "settings.env")]).model_fields_set == {"workers"}


@pytest.mark.parametrize(
    ("arrivals", "said"),
    [
        ([], "for independent clients it is not known"),
        ([point(300, 301, excess=2)], "not at 301 images/s for independent clients"),
    ],
)
def test_settings_say_what_is_not_known_of_independent_clients(
    tmp_path: Path, arrivals: list[Point], said: str
) -> None:
    report(Outcome(START, FASTER, [START, FASTER], arrivals=arrivals)).write(tmp_path)
    assert said in (tmp_path / "settings.env").read_text()


def test_what_is_not_confirmed_is_said_and_not_written(tmp_path: Path) -> None:
    start, other = trial(Candidate(), 1000), trial(Candidate(workers=2), 1500)
    outcome = Outcome(start, start, [start, other], unconfirmed=other, ended_early="it was interrupted")
    written = report(outcome)
    written.write(tmp_path)
    assert (
        "workers 2, threads auto, batch 64, fp32 looked better (1,500 images/s beside 1,000)" in written.text
    )
    assert "What was there is kept: workers auto" in written.text
    text = (tmp_path / "settings.env").read_text()
    assert "WORKERS" not in text
    assert "no line below" in text


def test_a_folder_that_cannot_be_made_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(InvalidConfiguration, match=r"--folder .*/file/x: .*; name another folder"):
        prepare(tmp_path / "file" / "x")


def test_a_report_that_cannot_be_written_over_is_refused(tmp_path: Path) -> None:
    (tmp_path / "result.json").mkdir()
    with pytest.raises(InvalidConfiguration, match="Is a directory; name another folder"):
        prepare(tmp_path)


def test_a_folder_is_made_and_nothing_is_left_in_it_or_taken_from_it(tmp_path: Path) -> None:
    prepare(tmp_path / "new" / "folder")
    assert not list((tmp_path / "new" / "folder").iterdir())
    (tmp_path / "report.txt").write_text("of the last time")
    prepare(tmp_path)
    assert (tmp_path / "report.txt").read_text() == "of the last time"


def test_a_folder_that_is_gone_in_the_end_does_not_take_the_findings_with_it(tmp_path: Path) -> None:
    with pytest.raises(ReportLost, match="Best: workers 2") as lost:
        report(Outcome(START, FASTER, [START, FASTER])).write(tmp_path / "gone")
    assert "gone cannot be written any more: No such file" in str(lost.value)


def test_an_objective_that_was_held_at_times_is_not_called_out_of_reach() -> None:
    start = replace(trial(Candidate(), 0), screening=[point(1000, excess=1.5)])
    other = trial(Candidate(workers=2), 1500)
    text = report(Outcome(start, start, [start, other], unconfirmed=other)).text
    assert "No configuration is confirmed to hold p99<50ms, though one did at times" in text
    alone = report(Outcome(start, start, [start])).text
    assert "No configuration holds p99<50ms: the nearest is 1.50 times above it" in alone
