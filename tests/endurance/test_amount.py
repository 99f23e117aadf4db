"""The number of requests on the command line of an endurance run."""

from __future__ import annotations

import pytest

from tests.endurance import amount


def test_the_number_is_that_of_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS", "1000000")
    assert amount.requests() == 1_000_000
    monkeypatch.delenv("REQUESTS")
    assert amount.requests() == 100_000


@pytest.mark.parametrize("text", ["abc", "0", "-5", "1e6", ""])
def test_what_is_no_number_of_requests_is_named(text: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REQUESTS", text)
    with pytest.raises(pytest.Collector.CollectError, match=f"REQUESTS='{text}' is not a whole number"):
        amount.requests()
