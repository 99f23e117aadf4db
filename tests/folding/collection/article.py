"""The layer order of the article that this project started from: conv → ReLU → BN → ReLU → max pool.

For v = s·z + t, relu(s·relu(z) + t) is clip(v, max(t, 0), ∞) for s > 0 and clip(v, 0, max(t, 0)) for s < 0:
a dead channel for t ≤ 0. So every block is one conv and one clamp.
"""

from __future__ import annotations

import torch
from torch import nn

from tests.folding.collection.registry import network
from tests.folding.collection.statistics import NEGATIVE, POSITIVE, TINY, ZERO, Signs
from tests.folding.collection.wiring import Wired

CLAMP = "conv → ReLU → BN → ReLU is conv → clamp, channel by channel"
DIGIT = ((1, 8, 8),)


def block(inputs: int, outputs: int) -> list[nn.Module]:
    """Conv → ReLU → BN → ReLU → max pool."""
    conv = nn.Conv2d(inputs, outputs, 3, padding="same")
    return [conv, nn.ReLU(), nn.BatchNorm2d(outputs), nn.ReLU(), nn.MaxPool2d(2)]


def article() -> nn.Module:
    """The whole network, small: two blocks, two dense layers, logits."""
    dense = [nn.Linear(48, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4)]
    return nn.Sequential(*block(1, 8), *block(8, 12), nn.Flatten(), *dense)


def of(signs: Signs, why: str) -> None:
    """Put the article's network in with BatchNorms of these signs."""
    kind = signs[0]

    def assemble() -> nn.Module:
        return article()

    assemble.__name__ = f"article_{kind}"
    network(fewest=0, why=f"{CLAMP}; {why}", shapes=DIGIT, signs=signs)(assemble)


of(POSITIVE, "s > 0: the lower end is max(t, 0)")
of(NEGATIVE, "s < 0: both ends are finite, or the channel is dead")
of(TINY, "tiny s: nearly constant, max(t, 0)")


@network(fewest=0, why=f"{CLAMP}; all signs, zeros and dead channels together", shapes=DIGIT)
def article_mixed() -> nn.Module:
    return article()


@network(fewest=0, why=f"{CLAMP}; softmax after the logits changes nothing", shapes=DIGIT)
def article_probabilities() -> nn.Module:
    return nn.Sequential(article(), nn.Softmax(1))


@network(
    fewest=0, why=f"{CLAMP}; s = 0: constants, max(t, 0), beside a live branch", shapes=DIGIT, signs=ZERO
)
def article_constant_branch() -> nn.Module:
    return Wired(
        lambda m, x: m.branch(x) + m.live(x),
        branch=nn.Sequential(*block(1, 8), nn.Conv2d(8, 4, 1)),
        live=nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.MaxPool2d(2)),
    )


@network(fewest=0, why=CLAMP, shapes=((6,),))
def article_dense() -> nn.Module:
    return nn.Sequential(
        nn.Linear(6, 8), nn.ReLU(), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 4), nn.Sigmoid()
    )


@network(fewest=0, why=f"{CLAMP}; a block's image is the output", shapes=DIGIT)
def article_block_is_the_output() -> nn.Module:
    return nn.Sequential(*block(1, 8))


@network(fewest=0, why="without the second ReLU the clamp is of the first alone", shapes=DIGIT)
def article_without_fused_activation() -> nn.Module:
    def plain(inputs: int, outputs: int) -> list[nn.Module]:
        return [layer for i, layer in enumerate(block(inputs, outputs)) if i != 3]

    return nn.Sequential(*plain(1, 8), *plain(8, 6), nn.Flatten(), nn.Linear(24, 4))


@network(fewest=0, why=CLAMP, shapes=DIGIT, dtype=torch.half)
def article_half() -> nn.Module:
    return article()


@network(fewest=0, why=CLAMP, shapes=DIGIT, dtype=torch.double)
def article_double() -> nn.Module:
    return article()
