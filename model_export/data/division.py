"""Dividing instances into splits: stratified, seeded, the same on every machine."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from model_export.errors import DataError


def divide(
    targets: NDArray[np.int64], shares: Sequence[float], seed: int, *, classes: Sequence[str]
) -> list[NDArray[np.intp]]:
    """Positions of disjoint parts, every class in its share in every part.

    The parts that are named by ``shares`` come first; what is left is the last one. A part has at
    least one instance of each class, and so has the rest.

    Args:
        targets: int64 [N], label indices; a multi-label matrix [N, K] is divided unstratified.
        shares: Of each part but the last; positive, together < 1.
        seed: Same seed, same parts.
        classes: What the labels are called.

    Returns:
        ``len(shares) + 1`` arrays of positions, each sorted.

    Raises:
        DataError: A class has too few instances to be in every part.
    """
    generator = np.random.default_rng(seed)
    strata = targets if targets.ndim == 1 else np.zeros(len(targets), dtype=np.int64)
    parts: list[list[NDArray[np.intp]]] = [[] for _ in range(len(shares) + 1)]
    for stratum in np.unique(strata):
        members = generator.permutation(np.flatnonzero(strata == stratum))
        if len(members) < len(parts):
            name = classes[stratum] if targets.ndim == 1 else None
            raise DataError(_too_few(len(members), len(parts), name))
        for part, positions in zip(parts, np.split(members, _cuts(len(members), shares)), strict=True):
            part.append(positions)
    return [np.sort(np.concatenate(part)) for part in parts]


def thin(targets: NDArray[np.int64], limit: int | None, seed: int) -> NDArray[np.intp]:
    """Positions of at most ``limit`` instances, the classes in their shares as far as that goes.

    Raises:
        DataError: The limit leaves no instance for some class.
    """
    if limit is None or limit >= len(targets):
        return np.arange(len(targets))
    strata = targets if targets.ndim == 1 else np.zeros(len(targets), dtype=np.int64)
    classes = len(np.unique(strata))
    if limit < classes:
        raise DataError(f"--limit {limit}: there are {classes} classes, and each needs an instance")
    order = np.random.default_rng(seed).permutation(len(targets))
    # Rank within the own class, relative to its size: taking the lowest ranks keeps the shares.
    rank = np.empty(len(targets))
    for stratum in np.unique(strata):
        members = order[strata[order] == stratum]
        rank[members] = np.arange(len(members)) / len(members)
    return np.sort(order[np.argsort(rank[order], kind="stable")[:limit]])


def _too_few(instances: int, parts: int, name: str | None) -> str:
    whose = "there are" if name is None else f"class '{name}' has"
    remedy = "" if name is None else ", or leave the class out"
    return f"{whose} {instances} picture(s), too few for {parts} splits; at least {parts}{remedy}"


def _cuts(members: int, shares: Sequence[float]) -> list[int]:
    cuts = []
    taken = 0
    for position, share in enumerate(shares):
        still_to_come = len(shares) - position  # parts after this one, each wants its instance
        taken += min(max(1, round(members * share)), members - taken - still_to_come)
        cuts.append(taken)
    return cuts
