"""Tells what became of each BatchNorm."""

from __future__ import annotations

from model_export.folding.choice import Choice
from model_export.folding.names import module_path
from model_export.folding.network import Network
from model_export.folding.rules import Remainder
from model_export.folding.rules.spellings import NORMALIZATIONS
from model_export.records import Fate


def tell_fates(network: Network, choice: Choice, error: float) -> tuple[Fate, ...]:
    """One fate a BatchNorm, in order."""
    left = {one.value for one in choice.maps if one.kind is Remainder.MAP}
    fates = []
    for spot in network.affine_spots:
        if spot.operator.target not in NORMALIZATIONS:
            continue
        name = module_path(spot.node)
        where = module_path(spot.value.node)
        if spot.value in left:
            fates.append(Fate(name, "kept", where, "multiply and add", "nothing could take all of it", None))
        else:
            fates.append(Fate(name, "folded", where, "scaled weights", None, error))
    return tuple(fates)
