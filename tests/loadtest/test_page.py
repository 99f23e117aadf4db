"""The report of an open-loop run: whole in itself, and of the same figures as everywhere else."""

from __future__ import annotations

import json
import re
from pathlib import Path

from loadtest.__main__ import main
from tests.loadtest.scripted_service import right_shaped, serving


def _run(folder: Path, *options: str) -> tuple[int, Path]:
    with serving(right_shaped) as url:
        code = main(["--host", url, "--reports", str(folder), "--rate", "100", "--duration", "2", *options])
    (run,) = folder.iterdir()
    return code, run


def test_a_run_leaves_page_samples_and_result(tmp_path: Path) -> None:
    code, run = _run(tmp_path, "--shape", "steady", "--objective", "p99<10s")
    assert {path.name for path in run.iterdir()} == {"report.html", "result.json", "samples.csv"}
    html = (run / "report.html").read_text()
    assert code == 0
    assert not re.search(r"<(script|link|img|iframe)|(src|href)=[\"']http", html)
    assert html.count("<svg") == 2
    result = json.loads((run / "result.json").read_text())
    assert result["title"] in html
    assert '<p class="held">' in html
    assert len((run / "samples.csv").read_text().splitlines()) == result["all"]["requests"] + 1


def test_steps_are_a_curve_and_a_table(tmp_path: Path) -> None:
    code, run = _run(tmp_path, "--shape", "knee", "--objective", "p99<0.0001ms")
    html = (run / "report.html").read_text()
    assert code == 1
    assert '<p class="missed">' in html
    assert html.count("<svg") == 3
    assert html.count("<tr>") == 2 + 1 + 10
