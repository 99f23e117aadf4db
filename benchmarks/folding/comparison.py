"""Every tool on every network of the collection: reached, right but not all of it, wrong, or failed.

::

    reached      the fewest affine maps are left, and the numbers are right
    short        the numbers are right, more maps are left than need be
    wrong        the numbers are wrong and the tool said nothing
    failed       the tool raised, or brought its process down
    not written  torch's exporter could not write the network, or ONNX Runtime not run what it wrote:
                 a tool on ONNX had nothing to work on
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import lru_cache
from typing import Literal

import numpy as np
import onnx
import torch
from torch import Tensor

from benchmarks.folding import onnx_counting
from benchmarks.folding.tools import EXPORTER, Tool, to_onnx
from tests.folding.collection import Network
from tests.folding.collection.counting import census
from tests.folding.collection.judging import exported, outputs_of, quiet, relative_error

Outcome = Literal["reached", "short", "wrong", "failed", "not written"]
OUTCOMES: tuple[Outcome, ...] = ("reached", "short", "wrong", "failed", "not written")

# Far above float32's rounding of these networks and far below what a wrong fold does to them.
WRONG = 1e-3


@dataclass(frozen=True, slots=True)
class Result:
    """What one tool made of one network. ``left``: affine maps, None where it failed."""

    tool: str
    network: str
    outcome: Outcome
    left: int | None
    error: float | None
    message: str = ""


class NotWritten(Exception):
    """There is no ONNX graph of this network to work on."""


def compare(network: Network, tool: Tool) -> Result:
    """What ``tool`` makes of ``network``."""
    try:
        left, error = _on_torch(network, tool) if tool.on_torch else _on_onnx(network, tool)
    except NotWritten as exc:
        # It is the exporter that could not, so only to itself is that a failure.
        return _none(tool, network, "failed" if tool is EXPORTER else "not written", exc)
    except Exception as exc:  # whatever a tool raises is its result
        return _none(tool, network, "failed", exc)
    wrong = not error <= WRONG
    outcome: Outcome = "wrong" if wrong else "reached" if left <= network.fewest else "short"
    return Result(tool.name, network.name, outcome, left, error)


def crashed(network: Network, tool: Tool) -> Result:
    """The result of a tool whose process is gone."""
    return Result(tool.name, network.name, "failed", None, None, "its process crashed")


def _none(tool: Tool, network: Network, outcome: Outcome, exc: Exception) -> Result:
    cause = exc.__cause__ or exc
    message = f"{type(cause).__name__}: {cause}".partition("\n")[0][:200]
    return Result(tool.name, network.name, outcome, None, None, message)


def _on_torch(network: Network, tool: Tool) -> tuple[int, float]:
    """Maps left and the largest error, in float64, on the program."""
    sample = network.build(torch.float64)
    if tool.on_torch is None:
        raise TypeError(f"{tool.name} does not work on torch")
    program = tool.on_torch(*sample)
    with quiet():
        folded = program.module()
    reference = network.build(torch.float64).model
    errors = [
        relative_error(outputs_of(folded, probe), outputs_of(reference, probe))
        for probe in network.probes(torch.float64)
    ]
    return census(program, sample.inputs).affine_maps, max(errors)


def _on_onnx(network: Network, tool: Tool) -> tuple[int, float]:
    """Maps left and the largest error, in float32, on the graph that the exporter writes."""
    written = _written(network)
    if tool.on_onnx is None:
        return _examined(network, written.optimised(), written.extra)
    copied = onnx.ModelProto()
    copied.CopyFrom(written.plain)
    return _examined(network, tool.on_onnx(copied), written.extra)


@dataclass(frozen=True, slots=True)
class _Written:
    """What the exporter wrote.

    Attributes:
        plain: Without its own optimiser.
        optimised: Its own optimiser's form of it.
        extra: Arithmetic that it added where torch has one operator: no fold can be blamed for it.
    """

    plain: onnx.ModelProto
    optimised: Callable[[], onnx.ModelProto]
    extra: int


@lru_cache(maxsize=1)
def _written(network: Network) -> _Written:
    """The network as ONNX, which ONNX Runtime can run.

    Raises:
        NotWritten: The exporter or ONNX Runtime cannot.
    """
    sample = network.build(torch.float32)
    program = exported(*sample)
    in_torch = census(program, sample.inputs).affine_maps
    try:
        plain, optimised = to_onnx(program)
        in_onnx = onnx_counting.count(plain, _feeds(plain, sample.inputs))
    except Exception as exc:  # two libraries' own errors, of many kinds
        raise NotWritten(network.name) from exc
    return _Written(plain, optimised, max(0, in_onnx - in_torch))


def _feeds(model: onnx.ModelProto, inputs: Iterable[Tensor]) -> onnx_counting.Feeds:
    return {value.name: x.numpy() for value, x in zip(model.graph.input, inputs, strict=True)}


def _examined(network: Network, model: onnx.ModelProto, extra: int) -> tuple[int, float]:
    """Maps left and the largest error, against the float64 original."""
    sample = network.build(torch.float32)
    left = onnx_counting.count(model, _feeds(model, sample.inputs)) - extra
    session = onnx_counting.session(model)
    reference = network.build(torch.float64).model
    worst = 0.0
    for probe in network.probes(torch.float32):
        outputs = [torch.from_numpy(np.asarray(y)) for y in session.run(None, _feeds(model, probe))]
        wide = tuple(x.double() if x.is_floating_point() else x for x in probe)
        worst = max(worst, relative_error(outputs, outputs_of(reference, wide)))
    return max(left, 0), worst
