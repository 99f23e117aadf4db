"""Who answers a request for one model.

::

    ?version=3, ?version=stable     that version, that alias
    nothing                         the live version, or for a share of the keys the canary

    share(key) = BLAKE2b(name, version, key) / 2⁶⁴  <  weight  ──▶ canary

The same key always falls to the same side, and who is on the canary's side stays there while its weight
grows. A canary of another version draws anew.

Source: RFC 7693 (BLAKE2).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import blake2b
from typing import Final

from service.errors import ModelNotFound
from service.repository.served import ServedModel

_DIGEST_BYTES: Final = 8
_SCALE: Final = float(1 << (8 * _DIGEST_BYTES))


@dataclass(frozen=True, slots=True)
class Routes:
    """One model's table. It is replaced as a whole, so a request sees the old one or the new one.

    Attributes:
        live: Answers requests that name no version.
        named: Versions and aliases.
        canary: Answers a share of them; None: nobody does.
        weight: That share, 0…1.
    """

    live: ServedModel
    named: Mapping[str, ServedModel]
    canary: ServedModel | None = None
    weight: float = 0.0

    def resolve(self, version: str | None, key: bytes) -> ServedModel:
        """The version that answers.

        Args:
            version: A version or an alias; None: the live one or the canary.
            key: What keeps a client on its side.

        Raises:
            ModelNotFound: This version is not loaded.
        """
        if version is None:
            return self.live if self.canary is None else self._drawn(self.canary, key)
        try:
            return self.named[version]
        except KeyError:
            raise ModelNotFound(
                f"model '{self.live.name}' serves version {self.live.version}, not '{version}'; "
                f"there is: {', '.join(sorted(self.named))}"
            ) from None

    def _drawn(self, canary: ServedModel, key: bytes) -> ServedModel:
        is_chosen = share(canary.name, canary.version, key) < self.weight
        return canary if is_chosen and canary.batcher.is_ready else self.live


def share(name: str, version: str, key: bytes) -> float:
    """Where a key falls for this canary: 0 ≤ share < 1, evenly."""
    salted = f"{name}/{version}/".encode() + key
    return int.from_bytes(blake2b(salted, digest_size=_DIGEST_BYTES).digest()) / _SCALE
