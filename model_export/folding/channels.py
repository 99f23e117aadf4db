"""Channels that are constant: dead units, zero scales, clips that never open."""

from __future__ import annotations

from collections.abc import Iterator

import torch

from model_export.folding.algebra import varying_axes
from model_export.folding.names import module_path
from model_export.folding.network import AffineSpot, Network
from model_export.folding.report import DeadChannels


def find_dead_channels(network: Network) -> tuple[DeadChannels, ...]:
    """The constant channels that affine maps and the operators behind them make, by layer, in order."""
    found: dict[str, DeadChannels] = {}
    for spot in network.affine_spots:
        for dead in _of_spot(network, spot):
            found.setdefault(dead.layer, dead)
    return tuple(found.values())


def _of_spot(network: Network, spot: AffineSpot) -> Iterator[DeadChannels]:
    value, view = network.views[spot.node]
    known = view(value.known)
    axes = varying_axes(known)
    if bool(known.isnan().all()) or len(axes) > 1:
        return
    flat = known.reshape(-1)
    channels = torch.nonzero(~flat.isnan()).reshape(-1).tolist()
    yield DeadChannels(module_path(spot.node), tuple(channels), tuple(float(flat[c]) for c in channels))
