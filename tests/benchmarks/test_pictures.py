"""Pictures in words."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks.pictures import describe
from benchmarks.serving.workloads import draw_photo
from tests.model_files import png


@pytest.mark.parametrize(
    ("sides", "words"),
    [((8, 8), "2 PNG pictures of 8 × 8, "), ((8, 20), "2 PNG pictures of up to 20 × 20, ")],
)
def test_one_size_is_named_and_several_are_bounded(sides: tuple[int, int], words: str) -> None:
    sent = [png(np.zeros((side, side, 1), np.uint8)) for side in sides]
    mean = sum(map(len, sent)) / 2
    assert describe(sent) == f"{words}{mean:.0f} bytes on average"


def test_formats_are_all_named() -> None:
    sent = [draw_photo(200, 100, seed=1), png(np.zeros((8, 8, 1), np.uint8))]
    assert describe(sent).startswith("2 JPEG or PNG pictures of up to 200 × 100, ")
