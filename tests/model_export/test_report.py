"""The model card: whole in one file, the same facts as its JSON, and nothing a label could break."""

from __future__ import annotations

import html.parser
import json
import re
import shlex
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from model_export import export, report, verification
from model_export.command_line import run_for
from model_export.command_line.flags import parser
from model_export.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from model_export.pipeline import Run
from model_export.records import Decision, TrainingPlan
from model_export.report import charts
from model_export.report.charts import Series
from model_export.report.reproduction import command


class Tags(html.parser.HTMLParser):
    """Counts what is opened and not closed, and collects what is loaded from elsewhere."""

    VOID = frozenset({"meta", "img", "br", "line", "rect", "circle", "polyline", "path", "link"})

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.sources: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.sources += [str(value) for name, value in attrs if name in ("src", "href")]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag not in self.VOID:
            assert self.open.pop() == tag


def test_the_page_is_well_formed_and_needs_nothing_from_elsewhere(version: Path) -> None:
    text = (version / "report.html").read_text(encoding="utf-8")
    tags = Tags()
    tags.feed(text)
    assert tags.open == []
    assert tags.sources
    assert all(source.startswith("data:image/") for source in tags.sources)
    assert not re.search(r"https?://(?!www\.w3\.org)", text)


def test_page_and_json_have_the_same_facts(version: Path) -> None:
    text = (version / "report.html").read_text(encoding="utf-8")
    facts = json.loads((version / "report.json").read_text())
    assert facts["sha256"] in text
    assert facts["sha256"] in (version / "model.onnx.sha256").read_text()
    for check in facts["verification"]["checks"]:
        assert check["check"] in text
    for fate in facts["fold"]["fates"]:
        assert fate["where"] in text
    assert f"{facts['cost']['after']['macs']:,}" in text
    assert len(facts["training"]) == 2
    assert sum(each["seconds"] for each in facts["times"]) > 0
    assert "Conv" in {each["operator"] for each in facts["times"]}
    assert facts["model"]["version"] == "1"
    train, validation, test = facts["data"]["splits"]
    assert (train["instances"], validation["instances"], test["instances"]) == (1259, 179, 359)
    assert sum(train["by_label"]) == 1259


def test_the_page_says_what_batch_norms_cost_and_shows_the_fold(version: Path) -> None:
    text = (version / "report.html").read_text(encoding="utf-8")
    before = json.loads((version / "report.json").read_text())["cost"]["before"]
    assert 0 < before["batch_norm_time_share"] < 1
    assert f"<b>{before['batch_norm_share']:.1%}</b> of the bytes" in text
    assert f"<b>{before['batch_norm_time_share']:.1%}</b> of the time" in text
    assert text.count('aria-label="The program before and after the fold"') == 1
    assert "batch_norm  norm1" in text


def test_the_page_says_how_the_statistics_were_calibrated(finished: Run) -> None:
    _, metadata = export.read_model_file(finished.workdir / "model.onnx")
    facts = finished._facts()
    assert facts.calibration is not None
    text = report.page(facts, metadata, "0" * 64)
    assert "How its running statistics were calibrated" in text
    assert f"{facts.calibration.after:.2%} with the new statistics" in text
    elsewhere = replace(facts.calibration, source="camera/", is_adapted=True)
    adapted = report.page(replace(facts, calibration=elsewhere), metadata, "0" * 64)
    assert "How it was adapted" in adapted
    assert "camera/" in adapted


def test_the_page_shows_every_decision_with_its_reason(finished: Run) -> None:
    _, metadata = export.read_model_file(finished.workdir / "model.onnx")
    decisions = (Decision("conv1", "no <BatchNorm>", "a batch gives 8 values"),)
    plan = TrainingPlan({}, 0.9, None, "none", 0.0, decisions)
    text = report.page(replace(finished._facts(), plan=plan), metadata, "0" * 64)
    assert "How its normalisation was planned" in text
    assert "no &lt;BatchNorm&gt;" in text
    assert "a batch gives 8 values" in text


@pytest.mark.parametrize("is_multilabel", [False, True])
def test_every_label_is_judged_whatever_their_number(finished: Run, is_multilabel: bool) -> None:
    _, metadata = export.read_model_file(finished.workdir / "model.onnx")
    many = 50
    generator = np.random.default_rng(0)
    logits = generator.normal(size=(200, many))
    targets = generator.integers(0, 2, (200, many)) if is_multilabel else generator.integers(0, many, 200)
    quality = verification.answer_quality(logits, targets)
    facts = finished._facts()
    names = tuple(f"label {number}" for number in range(many))
    text = report.page(
        replace(facts, verification=replace(facts.verification, quality=quality)),
        metadata.model_copy(update={"labels": names}),
        "0" * 64,
    )
    right = (logits > 0) if is_multilabel else (logits.argmax(axis=1)[:, None] == np.arange(many))
    shown = targets if is_multilabel else targets[:, None] == np.arange(many)
    for number, name in enumerate(names):
        found = int((right[:, number] & (shown[:, number] == 1)).sum())
        row = text[text.index(f"<td>{name}</td>") :]
        row = row[: row.index("</tr>")]
        for others in (shown[:, number].sum(), right[:, number].sum()):
            assert (f"{found / others:.2%}" if others else "–") in row


def test_a_label_is_text_whatever_it_contains(finished: Run) -> None:
    _, metadata = export.read_model_file(finished.workdir / "model.onnx")
    hostile = ("<script>alert(1)</script>", "</svg>", *metadata.labels[2:])
    text = report.page(finished._facts(), metadata.model_copy(update={"labels": hostile}), "0" * 64)
    assert "<script>" not in text
    assert "&lt;script&gt;" in text
    tags = Tags()
    tags.feed(text)
    assert tags.open == []


def test_the_command_makes_the_same_settings_again(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    config = RunConfig(
        name="mine",
        objective="fewest",
        data=DataConfig(
            dataset="imagefolder", data_dir=Path("some pictures"), input=(3, 8, 9), mean=(0.1, 0.2, 0.3)
        ),
        model=ModelConfig(architecture="resnet18"),
        train=TrainConfig(epochs=3, learning_rate=0.01, schedule="cosine"),
    )
    words = shlex.split(command(config))
    assert words[:3] == ["python", "-m", "model_export"]
    assert run_for(parser().parse_args(words[3:]), Console(quiet=True)).config == config


def test_a_line_chart_of_one_epoch_or_equal_values_is_drawn() -> None:
    for values in ((0.5,), (0.0, 0.0), (1.0, 1.0, 1.0)):
        chart = charts.line_chart([Series("a", values)], label="a")
        assert chart.count("<circle") == len(values)
        assert "nan" not in chart


def test_a_bar_stays_in_its_cell() -> None:
    assert 'width="100.00"' in charts.bar(7)
    assert 'width="0.00"' in charts.bar(-1)
    assert charts.log_share(1e-5, 1e-5) == 1
    assert charts.log_share(0, 1e-5) == charts.log_share(0, 0) == 0


def test_a_report_without_quality_is_still_a_report(finished: Run) -> None:
    _, metadata = export.read_model_file(finished.workdir / "model.onnx")
    facts = finished._facts()
    bare = report.Facts(
        config=facts.config,
        verification=replace(facts.verification, accuracy=(), quality=None),
    )
    text = report.page(bare, metadata, "0" * 64)
    assert "How good it is" not in text
    assert "What became of each BatchNorm" not in text
