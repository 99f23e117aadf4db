"""A collection of small networks, each with the fewest affine maps that an exact fold can leave.

The oracle for `model_export.folding.fold`, written from the algebra alone. ``python -m
tests.folding.collection`` prints what the fold reaches.
"""

from tests.folding.collection import (
    activations,
    affine_maps,
    article,
    blocks,
    consumers,
    left_alone,
    pooling,
    precisions,
    producers,
    python_models,
    rearrangements,
    sharing,
)
from tests.folding.collection.registry import Network, Sample, registered

TOPICS = (
    producers,
    affine_maps,
    consumers,
    activations,
    pooling,
    rearrangements,
    blocks,
    sharing,
    article,
    precisions,
    python_models,
    left_alone,
)
_ORDER = [module.__name__.rpartition(".")[2] for module in TOPICS]
COLLECTION: dict[str, Network] = {
    network.name: network for network in sorted(registered(), key=lambda network: _ORDER.index(network.topic))
}

__all__ = ["COLLECTION", "TOPICS", "Network", "Sample"]
