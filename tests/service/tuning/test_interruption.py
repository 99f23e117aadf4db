"""Signals during a search: nothing half done, nothing lost, and a second one ends it."""

from __future__ import annotations

import signal

import pytest

from service.tuning.interruption import Interrupted, Interruption

SIGNALS = [signal.SIGINT, signal.SIGTERM]


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_is_obeyed_at_the_next_checkpoint(number: signal.Signals) -> None:
    before = signal.getsignal(number)
    with Interruption() as interruption:
        interruption.checkpoint()
        signal.raise_signal(number)
        with pytest.raises(Interrupted):
            interruption.checkpoint()
    assert signal.getsignal(number) is before


@pytest.mark.parametrize("number", SIGNALS)
def test_the_second_signal_ends_the_program(number: signal.Signals) -> None:
    with Interruption():
        signal.raise_signal(signal.SIGINT)
        with pytest.raises(SystemExit) as ended:
            signal.raise_signal(number)
    assert ended.value.code == 128 + number
