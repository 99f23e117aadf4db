"""The pair of files is what it says, and both are measured."""

from __future__ import annotations

import re

import pytest

from benchmarks import precision


@pytest.mark.usefixtures("one_thread")
def test_every_batch_size_gets_its_ratio_and_its_interval(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--architecture", "cifar_resnet20", "--side", "32", "--batches", "1", "4", "--pairs", "6"]
    precision.main([*words, "--threads", "1"])
    printed = capsys.readouterr().out
    found = re.findall(r"batch (\d): .* ([\d.]+) times as fast \(([\d.]+) … ([\d.]+)\)", printed)
    assert [batch for batch, *_ in found] == ["1", "4"]
    assert all(float(low) <= float(ratio) <= float(high) for _, ratio, low, high in found)
