"""Layers, weights and values with several uses: folded per use, never corrupted.

A value that two consumers want in two forms keeps one of them for free; each other form is a map.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from tests.folding.collection.registry import network
from tests.folding.collection.statistics import ALIVE
from tests.folding.collection.wiring import Wired, WiredPair

PER_USE = "each use of the layer takes its own copy of the weights"
KEPT_AS_IT_IS = "the conv's output is wanted as it is; the map of it is one"
UNITS = "dividing by s, so every s must be ≠ 0"


@network(fewest=0, why=PER_USE)
def conv_called_twice() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.second(m.conv(F.gelu(m.first(m.conv(x)))))),
        conv=nn.Conv2d(3, 3, 3, padding=1),
        first=nn.BatchNorm2d(3),
        second=nn.BatchNorm2d(3),
    )


@network(fewest=0, why=PER_USE + "; one use has no BatchNorm at all", shapes=((3, 9, 9), (3, 6, 6)))
def conv_called_with_and_without_map() -> nn.Module:
    return WiredPair(
        lambda m, x, y: (F.gelu(m.bn(m.conv(x))), m.conv(y)), conv=nn.Conv2d(3, 8, 3), bn=nn.BatchNorm2d(8)
    )


@network(fewest=0, why=PER_USE + ": a head shared by two levels of a pyramid", shapes=((3, 8, 8), (3, 5, 5)))
def shared_head_own_maps() -> nn.Module:
    return WiredPair(
        lambda m, x, y: (F.relu(m.large(m.conv(x))), F.relu(m.small(m.conv(y)))),
        conv=nn.Conv2d(3, 8, 3),
        large=nn.BatchNorm2d(8),
        small=nn.BatchNorm2d(8),
    )


@network(fewest=0, why="one BatchNorm, two convs: each takes the map")
def map_called_twice() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.second(F.gelu(m.bn(m.first(x)))))),
        first=nn.Conv2d(3, 8, 3),
        second=nn.Conv2d(8, 8, 3),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=0, why="one BatchNorm, called forward and backward: each conv takes it", shapes=((8, 6, 6),))
def map_called_forward_and_backward() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.second(F.gelu(m.first(m.bn(x)))))),
        first=nn.Conv2d(8, 8, 3),
        second=nn.Conv2d(8, 8, 3, padding=1),
        bn=nn.BatchNorm2d(8),
    )


@network(fewest=0, why="the same map of the same value, called twice, is one value: into the conv")
def map_of_one_value_called_twice() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(z := m.conv(x))) + m.next(m.bn(z)),
        conv=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
        next=nn.Conv2d(8, 8, 1),
    )


def tied() -> nn.Module:
    """Two convs with one weight."""
    first, second = nn.Conv2d(3, 3, 3, padding=1), nn.Conv2d(3, 3, 3, padding=1)
    second.weight = first.weight
    return nn.Sequential(first, nn.BatchNorm2d(3), nn.GELU(), second, nn.GELU())


@network(fewest=0, why="the first conv takes the map on a copy; the second keeps the weight")
def tied_weights() -> nn.Module:
    return tied()


@network(fewest=0, why=PER_USE + "; the decoder uses the transposed weight as it is", shapes=((6,),))
def tied_transposed_weights() -> nn.Module:
    return Wired(
        lambda m, x: F.linear(F.gelu(m.bn(F.linear(x, m.weight))), m.weight.t()),
        weight=torch.randn(8, 6),
        bn=nn.BatchNorm1d(8),
    )


@network(fewest=0, why="both BatchNorms hold one γ; each conv takes its own map")
def tied_gamma() -> nn.Module:
    first, second = nn.BatchNorm2d(8), nn.BatchNorm2d(8)
    second.weight = first.weight
    return nn.Sequential(nn.Conv2d(3, 8, 3), first, nn.GELU(), nn.Conv2d(8, 8, 3), second, nn.GELU())


@network(fewest=1, why=KEPT_AS_IT_IS)
def conv_is_also_an_output() -> nn.Module:
    return Wired(
        lambda m, x: (F.gelu(m.bn(z := m.conv(x))), z), conv=nn.Conv2d(3, 8, 3), bn=nn.BatchNorm2d(8)
    )


@network(fewest=1, why=KEPT_AS_IT_IS + "; the clamp for the ReLU changes nothing of that")
def relu_is_also_an_output() -> nn.Module:
    return Wired(
        lambda m, x: (F.gelu(m.bn(y := F.relu(m.conv(x)))), y), conv=nn.Conv2d(3, 8, 3), bn=nn.BatchNorm2d(8)
    )


@network(fewest=1, why=KEPT_AS_IT_IS + ", for the skip")
def conv_feeds_a_skip() -> nn.Module:
    return Wired(lambda m, x: F.gelu(m.bn(z := m.conv(x))) + z, conv=nn.Conv2d(3, 8, 3), bn=nn.BatchNorm2d(8))


@network(fewest=1, why=KEPT_AS_IT_IS + ", for the skip; GELU after the sum lets nothing pass")
def conv_feeds_a_skip_around_relu() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(F.relu(m.bn(z := m.conv(x))) + z), conv=nn.Conv2d(3, 8, 3), bn=nn.BatchNorm2d(8)
    )


@network(fewest=0, why="forward into the conv that follows; the skip keeps the value")
def map_beside_a_skip() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.next(m.bn(z := F.gelu(m.conv(x)))) + z),
        conv=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
        next=nn.Conv2d(8, 8, 3, padding=1),
    )


@network(
    fewest=0,
    why="the conv gives BN(z); the other conv undoes the map in its weights; " + UNITS,
    signs=ALIVE,
)
def map_beside_a_conv() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(z := m.conv(x))) + m.next(z),
        conv=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
        next=nn.Conv2d(8, 8, 1),
    )


@network(
    fewest=0,
    why="the clamp gives BN(relu(z)); the other conv undoes the map in its weights; " + UNITS,
    signs=ALIVE,
)
def map_of_relu_beside_a_conv() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(y := F.relu(m.conv(x)))) + m.next(y),
        conv=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
        next=nn.Conv2d(8, 8, 1),
    )


@network(
    fewest=1,
    why="two GELUs want two forms of one value: one is free, the other a map of it; " + UNITS,
    signs=ALIVE,
)
def two_maps_of_one_conv() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.first(z := m.conv(x))) * F.gelu(m.second(z)),
        conv=nn.Conv2d(3, 8, 3),
        first=nn.BatchNorm2d(8),
        second=nn.BatchNorm2d(8),
    )


@network(fewest=0, why="each conv takes its map forward; the value between keeps its form")
def two_maps_of_one_value_into_convs() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.a(m.first(z := F.gelu(m.conv(x))))) + F.gelu(m.b(m.second(z))),
        conv=nn.Conv2d(3, 8, 3),
        first=nn.BatchNorm2d(8),
        second=nn.BatchNorm2d(8),
        a=nn.Conv2d(8, 4, 3, padding=1),
        b=nn.Conv2d(8, 4, 3, padding=1),
    )


@network(fewest=0, why="the map is the same for all that use it: into the conv")
def mapped_value_with_three_uses() -> nn.Module:
    return Wired(
        lambda m, x: (F.gelu(y := m.bn(m.conv(x))) + m.next(y), y),
        conv=nn.Conv2d(3, 8, 3),
        bn=nn.BatchNorm2d(8),
        next=nn.Conv2d(8, 8, 1),
    )


@network(fewest=0, why="z + z is 2·z: into the conv")
def value_added_to_itself() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn((z := m.conv(x)) + z)), conv=nn.Conv2d(3, 8, 3), bn=nn.BatchNorm2d(8)
    )


@network(fewest=0, why=PER_USE + ", once a step")
def unrolled_steps() -> nn.Module:
    return Wired(
        lambda m, x: F.gelu(m.bn(m.conv(F.gelu(m.bn(m.conv(F.gelu(m.bn(m.conv(x))))))))),
        conv=nn.Conv2d(3, 3, 3, padding=1),
        bn=nn.BatchNorm2d(3),
    )
