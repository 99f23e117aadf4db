"""A stage that takes long says what it is at, in a terminal and in a log."""

from __future__ import annotations

import io
from dataclasses import dataclass

import pytest
from rich.console import Console

from model_export.config import TrainConfig
from model_export.pipeline.progress import shown, shows
from model_export.training import train
from tests.model_export.tiny_datasets import drawn_dataset, small_network


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    stream = io.StringIO()
    return Console(file=stream, force_terminal=terminal, width=120), stream


def test_a_log_gets_one_line() -> None:
    log, stream = console(terminal=False)
    with shown("folding", log):
        pass
    assert stream.getvalue() == "folding …\n"


def test_a_terminal_gets_a_clock_that_is_gone_afterwards() -> None:
    terminal, stream = console(terminal=True)
    with shown("folding", terminal):
        pass
    assert "folding" in stream.getvalue()
    assert "0:00:00" in stream.getvalue()
    assert stream.getvalue().endswith("\x1b[1A\x1b[2K"), "the line is cleared"


def test_a_stage_keeps_its_arguments_its_result_and_its_error() -> None:
    @dataclass
    class Stages:
        console: Console

        @shows("halving")
        def half(self, number: int, *, by: int = 2) -> float:
            return number / by

    log, stream = console(terminal=False)
    assert Stages(log).half(6, by=3) == 2
    with pytest.raises(ZeroDivisionError):
        Stages(log).half(1, by=0)
    assert stream.getvalue() == 2 * "halving …\n"


@pytest.mark.usefixtures("one_thread")
def test_a_training_in_a_log_has_a_line_an_epoch_and_one_in_a_terminal_counts_batches() -> None:
    log, stream = console(terminal=False)
    train(small_network(), drawn_dataset(), TrainConfig(epochs=2, batch_size=32), console=log)
    lines = stream.getvalue().splitlines()
    assert [line.split(":")[0] for line in lines] == ["epoch 1", "epoch 2"]
    terminal, stream = console(terminal=True)
    train(small_network(), drawn_dataset(), TrainConfig(epochs=2, batch_size=32), console=terminal)
    assert "epoch 2" in stream.getvalue()
    assert "100%" in stream.getvalue()
