"""What each remainder costs: under ``fewest`` by its kind, under ``speed`` by the time it takes.

The unit under ``fewest`` is arbitrary: one affine map outweighs everything else a network can leave. Under
``speed`` it is the time ONNX Runtime's CPU provider takes for one element of a BatchNormalization beside a
convolution, which runs in the blocked layout as a 1×1 depthwise convolution with its ReLU fused. Operators
outside that layout (Max, Min, Add) cost the reorders as well.
"""

from __future__ import annotations

from model_export.folding.rules import Cost, Leftover, Remainder
from model_export.records import Objective

# One map outweighs a thousand clamps.
_FEWEST = {
    Remainder.MAP: 1e4,
    Remainder.SIGN: 12.0,
    Remainder.BORDER: 8.0,
    Remainder.CLAMP: 1.5,
    Remainder.SLOPE: 3.0,
    Remainder.SCALAR: 0.5,
}
# Time per element; a fixed part for one more node.
_SPEED = {
    Remainder.MAP: 1.0,
    Remainder.SIGN: 1.0,
    Remainder.BORDER: 4.0,
    Remainder.CLAMP: 4.0,
    Remainder.SLOPE: 3.0,
    Remainder.SCALAR: 2.0,
}
_NODE_ELEMENTS = 500.0

# A map along other axes than the channels' is no BatchNormalization: a Mul and an Add.
UNUSUAL_AXES = 6

# Between equals: leave values as they are; take a map backward rather than forward.
WRITE_IN_OTHER_FORM = 1e-3
READ_IN_OTHER_FORM = 2e-3


def price(cost: Cost, objective: Objective) -> float:
    """The cost as one number."""
    return sum(_price(leftover, objective) for leftover in cost)


def _price(leftover: Leftover, objective: Objective) -> float:
    if objective == "fewest":
        # Of two equal places take the smaller tensor.
        return _FEWEST[leftover.kind] * (1 + 1e-3 * min(leftover.elements / 1e6, 1.0))
    return (_SPEED[leftover.kind] * leftover.elements + _NODE_ELEMENTS) * 1e-3
