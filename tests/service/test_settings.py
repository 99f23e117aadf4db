"""Settings: bounds, precedence, and documentation that cannot fall behind."""

from __future__ import annotations

import re
from pathlib import Path
from typing import get_args

import pytest
from pydantic import ValidationError

from service.errors import InvalidConfiguration
from service.images import FORMATS
from service.settings import (
    ImageFormat,
    Settings,
    describe_settings,
    load_settings,
    settings_reference,
    variable_name,
)

REFERENCE = Path(__file__).parents[2] / "docs" / "settings.md"


def test_flag_wins_over_variable_wins_over_default(monkeypatch: pytest.MonkeyPatch) -> None:
    assert load_settings([]).max_batch_size == 64
    monkeypatch.setenv("FOLDSERVE_MAX_BATCH_SIZE", "16")
    assert load_settings([]).max_batch_size == 16
    assert load_settings(["--max-batch-size", "32"]).max_batch_size == 32


def test_unknown_variable_names_the_nearest(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSERVE_MAX_BATCHSIZE", "16")
    with pytest.raises(InvalidConfiguration, match=r"MAX_BATCHSIZE: .*nearest is FOLDSERVE_MAX_BATCH_SIZE"):
        load_settings([])


def test_every_bad_value_is_named_with_its_source(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSERVE_TOP_K", "0")
    with pytest.raises(InvalidConfiguration) as refusal:
        load_settings(["--port", "high"])
    assert "--port high" in str(refusal.value)
    assert "FOLDSERVE_TOP_K=0" in str(refusal.value)
    assert "\n" not in str(refusal.value)


def test_unknown_flag_exits_with_usage(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="2"):
        load_settings(["--max-batch", "3"])
    assert "--max-batch" in capsys.readouterr().err


def test_a_request_that_could_never_be_admitted_is_refused_at_start() -> None:
    with pytest.raises(InvalidConfiguration, match="could never be admitted"):
        load_settings(["--max-images-per-request", "65", "--max-queue-size", "64"])


def test_a_body_that_could_never_be_read_is_refused_at_start() -> None:
    with pytest.raises(InvalidConfiguration, match="could never be read"):
        load_settings(["--max-body-bytes", "4096", "--max-bytes-in-flight", "2048"])


def test_empty_variable_is_unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FOLDSERVE_THREADS", "")
    assert load_settings([]).threads is None


@pytest.mark.parametrize(
    ("text", "names"), [("all", None), ("digits", ("digits",)), ("digits, cats", ("digits", "cats"))]
)
def test_models_are_split_at_commas(text: str, names: tuple[str, ...] | None) -> None:
    assert load_settings(["--models", text]).models == names


def test_image_formats_are_those_that_there_are() -> None:
    assert frozenset(get_args(ImageFormat)) == FORMATS
    assert load_settings(["--image-formats", "png, jpeg"]).image_formats == ("png", "jpeg")
    assert load_settings(["--image-formats", "all"]).image_formats == get_args(ImageFormat)
    with pytest.raises(InvalidConfiguration, match="--image-formats"):
        load_settings(["--image-formats", "png,heic"])


def test_settings_are_frozen() -> None:
    settings = Settings()
    with pytest.raises(ValidationError, match="frozen"):
        settings.port = 1


def test_numbers_are_bounded_and_carry_their_unit() -> None:
    for name, field in Settings.model_fields.items():
        if field.annotation in (int, float):
            kinds = {type(limit).__name__ for limit in field.metadata}
            assert "Le" in kinds, f"{name} has no upper bound"
            assert kinds & {"Ge", "Gt"}, f"{name} has no lower bound"
        if "timeout" in name or "delay" in name or "grace" in name or "deadline" in name:
            assert name.endswith(("_s", "_ms")), f"{name} does not say its unit"


def test_help_teaches_every_setting(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        load_settings(["--help"])
    text = " ".join(capsys.readouterr().out.split())
    for name, default, _, description in describe_settings():
        assert f"--{name.replace('_', '-')}" in text
        assert description.split()[0] in text
        assert default in text


def test_reference_is_current() -> None:
    text = REFERENCE.read_text()
    assert text == settings_reference(), "write it anew: python -m service settings"
    for name in Settings.model_fields:
        assert f"`{variable_name(name)}`" in text


def test_the_readme_lists_every_limit() -> None:
    readme = (Path(__file__).parents[2] / "README.md").read_text()
    table = readme.partition("## Limits")[2].partition("\n## ")[0]
    listed = set(re.findall(r"^\| `(\w+)`", table, re.MULTILINE))
    no_limits = {"max_batch_size", "max_queue_delay_ms"}  # how batches are formed
    wanted = {name for name in Settings.model_fields if re.match(r"max_|rate_limit|.*_timeout_", name)}
    assert wanted - no_limits <= listed <= set(Settings.model_fields)
