"""Comparing two runs: what is there is shown, what is not is not, and chance is taken for neither."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray

from loadtest import comparison, samples
from loadtest.__main__ import main
from loadtest.comparison import Comparison, compare
from loadtest.measurement import Sample

SECONDS, RATE = 20, 100


def _arrivals(seed: int, seconds: int = SECONDS) -> NDArray[np.float64]:
    return np.sort(np.random.default_rng(seed).uniform(0, seconds, seconds * RATE))


def _save(
    folder: Path,
    latency_ms: NDArray[np.float64],
    at_s: NDArray[np.float64],
    *,
    failed: int = 0,
    is_valid: bool = True,
) -> Path:
    """A run's folder."""
    folder.mkdir(parents=True)
    written = [
        Sample(
            float(at),
            float(ms) / 1000,
            "raw",
            1,
            "ok" if position >= failed else "overloaded",
            0,
            0,
            {"queue": 0.5},
        )
        for position, (at, ms) in enumerate(zip(at_s, latency_ms, strict=True))
    ]
    samples.write(written, folder)
    (folder / "result.json").write_text(json.dumps({"valid": is_valid}))
    return folder


def _latencies(seed: int, at_s: NDArray[np.float64], level_ms: float = 10.0) -> NDArray[np.float64]:
    """Milliseconds that go up and down from second to second, as those of a real machine do."""
    random = np.random.default_rng(seed)
    seconds = random.gamma(20, level_ms / 20, int(at_s.max()) + 1)
    return np.asarray(seconds[at_s.astype(int)] + random.exponential(1, len(at_s)), np.float64)


def _compared(folder: Path, seed: int, *, factor: float = 1.0) -> Comparison:
    """Two runs of the same distribution with other arrivals, the second one's latencies times the factor."""
    a, b = _arrivals(2 * seed), _arrivals(2 * seed + 1)
    return compare(
        _save(folder / f"a{seed}", _latencies(2 * seed, a), a),
        _save(folder / f"b{seed}", factor * _latencies(2 * seed + 1, b), b),
    )


def test_two_runs_of_one_service_rarely_differ(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At a level of 95 %; the seconds are few, so a little more is chance."""
    monkeypatch.setattr(comparison, "_DRAWS", 300)
    shown = [
        difference.is_shown
        for seed in range(15)
        for difference in _compared(tmp_path, seed).differences
        if difference.name in {"p50", "p95", "mean"}
    ]
    assert sum(shown) <= 0.15 * len(shown)


def test_requests_that_are_not_independent_are_not_taken_for_it(tmp_path: Path) -> None:
    """The interval of a mean is wider than that of as many independent requests, by far."""
    mean = next(each for each in _compared(tmp_path, 1).differences if each.name == "mean")
    latencies = _latencies(2, _arrivals(2))
    naive = 2 * 1.96 * np.sqrt(2) * latencies.std() / np.sqrt(len(latencies))
    assert mean.high - mean.low > 2 * naive


@pytest.mark.parametrize(("factor", "word", "code"), [(1.5, "worse", 1), (0.6, "better", 0)])
def test_a_difference_is_shown_with_its_sign(factor: float, word: str, code: int, tmp_path: Path) -> None:
    compared = _compared(tmp_path, 0, factor=factor)
    p50 = next(each for each in compared.differences if each.name == "p50")
    assert p50.is_shown
    assert p50.low < p50.b - p50.a < p50.high
    assert f"B is {word} in p50" in comparison.as_text(compared)
    assert compared.exit_code == code


def test_the_same_arrivals_are_compared_second_by_second(tmp_path: Path) -> None:
    at_s = _arrivals(0)
    latencies = _latencies(1, at_s)
    a = _save(tmp_path / "a", latencies, at_s)
    b = _save(tmp_path / "b", latencies + 0.2, at_s)
    other = _save(tmp_path / "c", latencies + 0.2, at_s + 0.001)
    paired, unpaired = compare(a, b), compare(a, other)
    assert paired.is_paired
    assert not unpaired.is_paired
    assert {each.name for each in paired.differences if each.is_worse} == {"p50", "p95", "p99", "mean"}
    assert not any(each.is_shown for each in unpaired.differences)


def test_failures_are_errors_and_no_latencies(tmp_path: Path) -> None:
    at_s = _arrivals(0)
    latencies = np.full(len(at_s), 5.0)
    latencies[: len(at_s) // 2] = 900.0
    a = _save(tmp_path / "a", np.full(len(at_s), 5.0), at_s)
    b = _save(tmp_path / "b", latencies, at_s, failed=len(at_s) // 2)
    figures = {each.name: each for each in compare(a, b).differences}
    assert figures["p99"].b == 5.0
    assert figures["errors"].b == pytest.approx(50)
    assert figures["images"].b == pytest.approx(RATE / 2)
    assert figures["errors"].is_worse
    assert figures["images"].is_worse


def test_samples_survive_their_file(tmp_path: Path) -> None:
    at_s = _arrivals(0)
    read = samples.read(_save(tmp_path / "a", _latencies(0, at_s), at_s, failed=3))
    np.testing.assert_allclose(read.at_s, at_s, atol=1e-6)
    np.testing.assert_allclose(read.latency_ms, _latencies(0, at_s), atol=1e-4)
    assert read.images.sum() == len(at_s) - 3
    header = (tmp_path / "a" / "samples.csv").read_text().splitlines()[0]
    assert header == "at_s,latency_ms,form,images,model,size,kind,queue_ms"


def test_what_cannot_be_compared_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    at_s = _arrivals(0)
    good = _save(tmp_path / "good", _latencies(0, at_s), at_s)
    short = _save(tmp_path / "short", _latencies(0, at_s[:200]), at_s[:200])
    lagged = _save(tmp_path / "lagged", _latencies(0, at_s), at_s, is_valid=False)
    empty = _save(tmp_path / "empty", at_s[:0], at_s[:0])
    half = _save(tmp_path / "half", _latencies(0, at_s), at_s)
    (half / "result.json").unlink()
    broken = _save(tmp_path / "broken", _latencies(0, at_s), at_s)
    (broken / "samples.csv").write_text("at_s,latency_ms\n1,2\n")
    for folder, why in (
        (short, "too short"),
        (lagged, "generator lagged"),
        (empty, "without requests"),
        (half, "no saved run"),
        (broken, "no saved run"),
        (tmp_path / "none", "no saved run"),
    ):
        assert main(["compare", str(good), str(folder)]) == 2
        assert why in capsys.readouterr().err
    assert main(["compare", str(good), str(good)]) == 0
    assert "no difference is shown" in capsys.readouterr().out
