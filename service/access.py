"""Who may ask, and how often.

::

    Authorization: Bearer KEY  or  X-API-Key: KEY
        ├─ none, or one nobody knows ─▶ Unauthenticated (401)
        ├─ without the route's scope ─▶ Forbidden (403)
        └─ known ─▶ token bucket of that key ─▶ empty: RateLimited (429, Retry-After)

    no key file: everybody is admitted but to administration, and buckets are by address

The file holds hashes only::

    # name     scopes            SHA-256 of the key
    web        predict           9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08
    grafana    metrics           60303ae22b998861bce3b28f33eec1be758a213c86c93c076dbe9f558c11c752

It is read again when it changes. A plain hash is enough: keys are random (`make_key`), so nobody can
guess one and hash the guess.
"""

from __future__ import annotations

import hashlib
import hmac
import logging
import re
import secrets
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Final, TypeAlias

from service.errors import Forbidden, InvalidConfiguration, RateLimited, RequestError, Unauthenticated

logger = logging.getLogger(__name__)

_NAME = r"[A-Za-z0-9._-]{1,64}"
_LINE = re.compile(rf"(?P<name>{_NAME})\s+(?P<scopes>[a-z,]+)\s+(?P<digest>[0-9a-f]{{64}})", re.ASCII)
_RELOAD_INTERVAL_S = 1.0
# Buckets kept at once; beyond it the one unused for longest is forgotten, that is, full again.
_MAX_BUCKETS = 10_000

# What became of a request with a known key; else it is the reason of the refusal.
ADMITTED: Final = "admitted"
# Name of the key, and what became of the request.
CountUse: TypeAlias = Callable[[str, str], None]


class Scope(StrEnum):
    """What a key may be good for."""

    PREDICT = "predict"
    METRICS = "metrics"
    ADMIN = "admin"


@dataclass(frozen=True, slots=True)
class Key:
    """A known key: a name for the log, and what it is good for. Not the key itself."""

    name: str
    scopes: frozenset[Scope]


class KeyFile:
    """The keys of a file, read again when it changes.

    Args:
        path: The file.
        clock: Seconds.

    Raises:
        InvalidConfiguration: It cannot be read, or a line is wrong. A later change that is wrong is
            logged, and the keys stay as they were.
    """

    def __init__(self, path: Path, clock: Callable[[], float] = time.monotonic) -> None:
        self._path = path
        self._clock = clock
        self._next_look = clock() + _RELOAD_INTERVAL_S
        self._stamp = _stamp(path)
        self._blind = secrets.token_bytes(32)
        self._keys = self._blinded(read_keys(path))

    def find(self, secret: bytes) -> Key | None:
        """The key that this secret is; None if nobody knows it. Takes the same time, however close it comes.

        What is compared on the way is a hash under a random key of this process: its duration says nothing of
        the secret, and nothing that the next attempt could use.
        """
        self._reload()
        return self._keys.get(self._blinded_digest(hashlib.sha256(secret).digest()))

    def _blinded(self, keys: Mapping[str, Key]) -> dict[bytes, Key]:
        return {self._blinded_digest(bytes.fromhex(digest)): key for digest, key in keys.items()}

    def _blinded_digest(self, digest: bytes) -> bytes:
        return hmac.digest(self._blind, digest, "sha256")

    def _reload(self) -> None:
        now = self._clock()
        if now < self._next_look:
            return
        self._next_look = now + _RELOAD_INTERVAL_S
        try:
            stamp = _stamp(self._path)
            if stamp != self._stamp:
                self._stamp = stamp
                self._keys = self._blinded(read_keys(self._path))
                logger.info("%s: %d keys", self._path, len(self._keys))
        except InvalidConfiguration as error:
            logger.error("the keys stay as they were: %s", error)


def _stamp(path: Path) -> tuple[int, int, int]:
    """What changes when the file does."""
    try:
        status = path.stat()
    except OSError as error:
        raise InvalidConfiguration(f"{path}: cannot be read: {error.strerror}") from error
    return status.st_mtime_ns, status.st_size, status.st_ino


def read_keys(path: Path) -> dict[str, Key]:
    """The keys in a file, by the hexadecimal SHA-256 of their secret.

    Raises:
        InvalidConfiguration: It cannot be read, or a line is wrong; names the line.
    """
    try:
        lines = path.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidConfiguration(f"{path}: cannot be read: {error}") from error
    keys = {}
    for number, line in enumerate(lines, start=1):
        text = line.partition("#")[0].strip()
        if text:
            digest, key = _parse_line(text, f"{path}:{number}")
            keys[digest] = key
    return keys


def _parse_line(text: str, where: str) -> tuple[str, Key]:
    match = _LINE.fullmatch(text)
    if match is None:
        raise InvalidConfiguration(
            f"{where}: expected `name scope,scope sha256`; `python -m service key` writes one"
        )
    scopes = match["scopes"].split(",")
    unknown = sorted(set(scopes) - set(Scope))
    if unknown:
        raise InvalidConfiguration(f"{where}: no scope '{unknown[0]}'; there are {', '.join(Scope)}")
    return match["digest"], Key(match["name"], frozenset(map(Scope, scopes)))


def make_key(name: str, scopes: Iterable[Scope]) -> tuple[str, str]:
    """A new random key, and its line for the file.

    Raises:
        InvalidConfiguration: A name that does not fit into such a line.
    """
    if not re.fullmatch(_NAME, name):
        raise InvalidConfiguration(f"'{name}' is no name for a key: up to 64 letters, digits, and . _ -")
    secret = secrets.token_urlsafe(32)
    digest = hashlib.sha256(secret.encode()).hexdigest()
    return secret, f"{name} {','.join(sorted(scopes))} {digest}"


class RateLimiter:
    """A token bucket for each client: a minute's worth at once, then as fast as it fills again.

    Args:
        per_minute: Requests.
        clock: Seconds.
    """

    def __init__(self, per_minute: int, clock: Callable[[], float] = time.monotonic) -> None:
        self._capacity = float(per_minute)
        self._per_s = per_minute / 60
        self._clock = clock
        # Client → tokens and when they were counted; the client seen last stands last.
        self._buckets: OrderedDict[str, tuple[float, float]] = OrderedDict()

    def __len__(self) -> int:
        return len(self._buckets)

    def take(self, client: str) -> None:
        """Take one token of this client.

        Raises:
            RateLimited: There is none; says when there will be.
        """
        now = self._clock()
        tokens, counted_at = self._buckets.pop(client, (self._capacity, now))
        tokens = min(self._capacity, tokens + (now - counted_at) * self._per_s)
        is_granted = tokens >= 1
        self._buckets[client] = (tokens - 1 if is_granted else tokens, now)
        if len(self._buckets) > _MAX_BUCKETS:
            self._buckets.popitem(last=False)
        if not is_granted:
            raise RateLimited(f"more than {self._capacity:g} requests a minute", (1 - tokens) / self._per_s)


class Access:
    """The door: keys, then rates.

    Args:
        keys: None: everybody is admitted.
        limiter: None: as often as they like.
        count: Told of every use of a known key, by its name.
    """

    def __init__(
        self, keys: KeyFile | None, limiter: RateLimiter | None, count: CountUse = lambda *_: None
    ) -> None:
        self._keys = keys
        self._limiter = limiter
        self._count = count

    def admit(self, scope: Scope, headers: Mapping[bytes, bytes], address: str) -> None:
        """Let a request in, or say why not. Only predictions are rated.

        Args:
            scope: What it is about.
            headers: By lower-case name.
            address: Of the client, for whom nothing else is known of.

        Raises:
            Unauthenticated, Forbidden, RateLimited: Not this one, or not now.
        """
        if self._keys is None and scope is Scope.ADMIN:
            raise no_administration()
        if self._keys is None:
            self._rate(address, scope)
            return
        key = self._authenticate(self._keys, headers)
        try:
            if scope not in key.scopes:
                raise Forbidden(f"this API key is not good for '{scope}'")
            self._rate(f"key {key.name}", scope)
        except RequestError as error:
            self._count(key.name, error.reason.value)
            raise
        self._count(key.name, ADMITTED)

    def _rate(self, client: str, scope: Scope) -> None:
        if self._limiter is not None and scope is Scope.PREDICT:
            self._limiter.take(client)

    def _authenticate(self, keys: KeyFile, headers: Mapping[bytes, bytes]) -> Key:
        secret = _secret(headers)
        if secret is None:
            raise Unauthenticated("an API key is needed: `Authorization: Bearer KEY` or `X-API-Key: KEY`")
        key = keys.find(secret)
        if key is None:
            raise Unauthenticated("this API key is not known")
        return key


def no_administration() -> Forbidden:
    """Why nobody may change anything where there are no keys."""
    return Forbidden("this needs an API key with the scope 'admin', and the service has no api_keys_file")


def _secret(headers: Mapping[bytes, bytes]) -> bytes | None:
    scheme, _, credentials = headers.get(b"authorization", b"").partition(b" ")
    if scheme.lower() == b"bearer" and credentials.strip():
        return credentials.strip()
    return headers.get(b"x-api-key") or None
