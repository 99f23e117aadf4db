"""The profile of a request: which group a sample counts for, and the page."""

from __future__ import annotations

import pytest

from benchmarks.request_profile import GROUPS, Profile, group_of, page, shares

LOOP = "run (uvloop/loop.pyx);"
STACKS = {
    f"{LOOP}data_received (/x/service/server/connection.py)": "connection: read, parse, write",
    f"{LOOP}data_received (/x/service/server/connection.py);feed (/x/httptools/parser.pyx)": (
        "connection: read, parse, write"
    ),
    f"{LOOP}__call__ (/x/service/api/predict.py);open (/y/PIL/Image.py)": "decoding",
    f"{LOOP}__call__ (/x/service/api/predict.py)": "route: headers, body, JSON",
    f"{LOOP}_answer (/x/service/batcher/batcher.py)": "batcher",
    f"{LOOP}__call__ (/x/service/api/predict.py);observe (/x/service/metrics/series.py)": "metrics and log",
    f"{LOOP}ended (/x/service/app/journal.py)": "metrics and log",
    "bootstrap (threading.py);_serve (/x/service/batcher/batcher.py);run (/x/service/engine/engine.py)": (
        "engine: run and batch"
    ),
    "run (uvloop/loop.pyx)": "event loop",
    "main (/x/unknown.py)": "everything else",
}


@pytest.mark.parametrize(("stack", "group"), STACKS.items())
def test_a_sample_counts_for_its_innermost_known_frame(stack: str, group: str) -> None:
    assert group_of(stack) == group


def test_every_group_can_be_met() -> None:
    assert set(STACKS.values()) >= set(GROUPS)


def test_shares_add_up() -> None:
    folded = "run (uvloop/loop.pyx) 3\nrun (a b/uvloop/loop.pyx);open (/y/PIL/Image.py) 1\n"
    assert shares(folded) == {"event loop": 0.75, "decoding": 0.25}


def test_the_page_has_both_tables() -> None:
    lone = Profile(1, 2000, 0.4, {"decode": 0.05}, 1.0, 300, {})
    many = Profile(32, 7000, 4.2, {"decode": 0.06}, 16.2, 150, {})
    text = page([lone, many], {"decoding": 0.4, "event loop": 0.6}, "Model `digits`, 3 PNG pictures.")
    assert "its clients on the same machine. Model `digits`, 3 PNG pictures." in text
    assert "| decode | 0.050 | 0.060 |" in text
    assert "| CPU µs a request | 300 | 150 |" in text
    assert "| decoding | 60 | 40% |" in text
