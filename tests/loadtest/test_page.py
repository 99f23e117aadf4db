"""The report of an open-loop run: whole in itself, and of the same figures as everywhere else."""

from __future__ import annotations

import csv
import json
import re
from pathlib import Path

from loadtest.__main__ import main
from loadtest.pictures import SIDES
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
    assert html.count("<svg") == 3
    result = json.loads((run / "result.json").read_text())
    assert result["title"] in html
    assert '<p class="held">' in html
    assert re.search(r"<td>p99&lt;10s<td>[0-9.]+ ms\s+<td class=.held.>held", html)
    assert len((run / "samples.csv").read_text().splitlines()) == result["all"]["requests"] + 1


def test_steps_are_a_curve_and_a_table(tmp_path: Path) -> None:
    code, run = _run(tmp_path, "--shape", "knee", "--rate", "400", "--objective", "throughput<160/s")
    html = (run / "report.html").read_text()
    result = json.loads((run / "result.json").read_text())
    assert code == 1  # at the rate that was asked for
    assert '<p class="missed">' in html
    assert html.count("<svg") == 3
    assert 3 <= len(result["steps"]) == html.count("<tr>") - 3
    held = [step["rate_per_s"] for step in result["steps"] if step["held"]]
    assert 80 < max(held) < 320
    late = r"; at [\d,]+ the generator itself was late"  # where others have the machine
    assert re.search(rf"Held up to {max(held):.0f} arrivals/s({late})?\.", html)


def test_models_and_sizes_are_told_apart(tmp_path: Path) -> None:
    _, run = _run(tmp_path, "--shape", "sizes", "--model", "a,b", "--objective", "")
    result = json.loads((run / "result.json").read_text())
    assert set(result["by_model"]) == {"a", "b"}
    assert [*result["by_size"]] == [f"{side} px" for side in SIDES]
    for trait in ("form", "model", "size"):
        assert sum(part["requests"] for part in result[f"by_{trait}"].values()) == result["all"]["requests"]
    rows = csv.DictReader((run / "samples.csv").read_text().splitlines())
    assert {row["model"] for row in rows} == {"a", "b"}
