"""Keys and rates: who is let in, who is not and why, and that the file may change."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.access import Access, KeyFile, RateLimiter, Scope, make_key, read_keys
from service.errors import Forbidden, InvalidConfiguration, RateLimited, Unauthenticated
from service.metrics import MAX_LABELS, OTHER_LABEL, Metrics


class Clock:
    """Time that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def bearer(secret: str) -> Mapping[bytes, bytes]:
    return {b"authorization": f"Bearer {secret}".encode()}


def test_a_made_key_opens_what_its_scopes_say(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    secret, line = make_key("web", [Scope.PREDICT])
    path.write_text(f"# who  what  hash\n\n{line}  # the shop\n")
    access = Access(KeyFile(path), None)
    access.admit(Scope.PREDICT, bearer(secret), "address")
    access.admit(Scope.PREDICT, {b"x-api-key": secret.encode()}, "address")
    with pytest.raises(Forbidden, match="metrics"):
        access.admit(Scope.METRICS, bearer(secret), "address")
    assert secret not in path.read_text()


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {b"authorization": b"Bearer "},
        {b"authorization": b"Basic eDp5"},
        {b"x-api-key": b""},
        {b"x-api-key": b"\xff"},
        bearer("wrong"),
    ],
)
def test_without_a_known_key_nobody_is_let_in(tmp_path: Path, headers: Mapping[bytes, bytes]) -> None:
    path = tmp_path / "keys"
    path.write_text(make_key("web", [Scope.PREDICT])[1])
    with pytest.raises(Unauthenticated):
        Access(KeyFile(path), None).admit(Scope.PREDICT, headers, "address")


def test_the_hash_of_a_key_is_not_a_key(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    secret, line = make_key("web", [Scope.PREDICT])
    path.write_text(line)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    assert KeyFile(path).find(secret.encode()) is not None
    assert KeyFile(path).find(digest.encode()) is None


def test_a_changed_file_is_read_again(tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "keys"
    old, old_line = make_key("old", [Scope.PREDICT])
    new, new_line = make_key("new", [Scope.PREDICT])
    path.write_text(old_line)
    keys = KeyFile(path, clock)
    path.write_text(f"{new_line}\n")
    assert keys.find(old.encode()) is not None  # it looks once a second, not at every request
    clock.now += 2
    assert keys.find(old.encode()) is None
    assert keys.find(new.encode()) is not None
    path.write_text("nonsense")
    clock.now += 2
    assert keys.find(new.encode()) is not None
    path.unlink()
    clock.now += 2
    assert keys.find(new.encode()) is not None
    assert caplog.text.count("the keys stay as they were") == 2


@pytest.mark.parametrize(
    "line", ["web", "web predict abc", "web everything " + "0" * 64, "a b predict " + "0" * 64]
)
def test_a_wrong_line_is_named(tmp_path: Path, line: str) -> None:
    path = tmp_path / "keys"
    path.write_text(f"# fine\n{line}\n")
    with pytest.raises(InvalidConfiguration, match="keys:2"):
        read_keys(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_an_unreadable_file_is_named(tmp_path: Path) -> None:
    path = tmp_path / "keys"
    path.write_text("")
    path.chmod(0)
    with pytest.raises(InvalidConfiguration, match="keys: cannot be read"):
        KeyFile(path)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidConfiguration, match="keys: cannot be read"):
        KeyFile(tmp_path / "keys")


def test_a_name_that_breaks_the_line_is_refused() -> None:
    with pytest.raises(InvalidConfiguration, match="no name for a key"):
        make_key("two words", [Scope.PREDICT])


@given(st.integers(1, 200), st.lists(st.floats(0, 30), min_size=1, max_size=200))
def test_never_more_than_the_bucket_and_what_flowed_in(per_minute: int, pauses: list[float]) -> None:
    clock = Clock()
    limiter = RateLimiter(per_minute, clock)
    waits = []
    for pause in pauses:
        clock.now += pause
        waits.append(_wait(limiter))
        assert waits.count(0.0) <= per_minute + clock.now * per_minute / 60 + 1e-3


def _wait(limiter: RateLimiter) -> float:
    """Take a token; the seconds that were asked to be waited for it."""
    try:
        limiter.take("one")
    except RateLimited as refusal:
        return refusal.retry_after_s
    return 0.0


@given(st.integers(1, 10_000))
def test_the_time_it_says_is_enough_and_not_too_much(per_minute: int) -> None:
    clock = Clock()
    limiter = RateLimiter(per_minute, clock)
    while not (wait_s := _wait(limiter)):
        continue
    assert 0 < wait_s <= 60 / per_minute + 1e-6
    clock.now += wait_s * 0.99
    assert _wait(limiter)
    clock.now += wait_s * 0.01 + 1e-6
    assert not _wait(limiter)


def test_clients_do_not_share_a_bucket(clock: Clock) -> None:
    limiter = RateLimiter(1, clock)
    limiter.take("one")
    with pytest.raises(RateLimited):
        limiter.take("one")
    limiter.take("two")


def test_buckets_are_bounded(clock: Clock) -> None:
    limiter = RateLimiter(1, clock)
    for number in range(20_000):
        limiter.take(str(number))
    assert len(limiter) == 10_000


def test_every_use_of_a_key_is_counted_under_its_name(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "keys"
    secret, line = make_key("web", [Scope.PREDICT])
    path.write_text(line)
    uses: list[tuple[str, str]] = []
    access = Access(KeyFile(path), RateLimiter(1, clock), lambda *use: uses.append(use))
    access.admit(Scope.PREDICT, bearer(secret), "here")
    for scope, error in ((Scope.PREDICT, RateLimited), (Scope.ADMIN, Forbidden)):
        with pytest.raises(error):
            access.admit(scope, bearer(secret), "here")
    with pytest.raises(Unauthenticated):
        access.admit(Scope.PREDICT, bearer("nobody's"), "here")
    assert uses == [("web", "admitted"), ("web", "rate_limited"), ("web", "forbidden")]


def test_a_file_of_many_keys_makes_no_more_labels_than_others() -> None:
    metrics = Metrics(version="1")
    for number in range(3 * MAX_LABELS):
        metrics.key_used(f"key{number}", "admitted")
    names = {values[0] for values, _ in metrics.key_requests.items()}
    assert len(names) == MAX_LABELS + 1
    assert metrics.key_requests.labels(OTHER_LABEL, "admitted").value == 2 * MAX_LABELS


def test_two_processes_compare_other_bytes_for_the_same_key(tmp_path: Path) -> None:
    """Who measures how long a comparison takes learns nothing that helps at the next."""
    path = tmp_path / "keys"
    secret, line = make_key("web", [Scope.PREDICT])
    path.write_text(line)
    one, other = KeyFile(path), KeyFile(path)
    assert one.find(secret.encode()) == other.find(secret.encode())
    assert one._keys.keys().isdisjoint(other._keys)


def test_the_rate_is_of_the_key_and_not_of_the_address(tmp_path: Path, clock: Clock) -> None:
    path = tmp_path / "keys"
    secret, line = make_key("web", [Scope.PREDICT, Scope.METRICS])
    path.write_text(line)
    access = Access(KeyFile(path), RateLimiter(1, clock))
    access.admit(Scope.PREDICT, bearer(secret), "here")
    with pytest.raises(RateLimited):
        access.admit(Scope.PREDICT, bearer(secret), "there")
    access.admit(Scope.METRICS, bearer(secret), "here")  # scrapes are not rated
