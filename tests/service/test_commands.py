"""``python -m service`` beside serving: its help names every command, and each has a usage of its own."""

from __future__ import annotations

import pytest

from service.__main__ import main
from service.commands import COMMANDS


def test_help_lists_every_command_with_a_line(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    lines = capsys.readouterr().out.splitlines()
    assert {"tune", "doctor", "key", "rollback", "route"} <= set(COMMANDS)
    for name, command in COMMANDS.items():
        assert [name, command.summary] in [line.split(maxsplit=1) for line in lines]


@pytest.mark.parametrize("arguments", [["tune"], ["rollback", "digits"], ["route", "digits"]])
def test_a_flag_that_nobody_knows_is_refused_with_the_commands_own_usage(
    arguments: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main([*arguments, "--nope"])
    said = capsys.readouterr().err
    assert said.startswith(f"usage: python -m service {arguments[0]} ")
    assert said.endswith(f"python -m service {arguments[0]}: error: unrecognized arguments: --nope\n")
    assert "--grpc-port" not in said


def test_a_flag_of_the_service_without_its_value_is_refused_with_the_commands_own_usage(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with pytest.raises(SystemExit, match="2"):
        main(["tune", "--workers"])
    said = capsys.readouterr().err
    assert said.startswith("usage: python -m service tune ")
    assert "argument --workers: expected one argument" in said
