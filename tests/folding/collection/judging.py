"""The verdict on a folded network: how many maps are left, how wrong it is, and what else is amiss."""

from __future__ import annotations

import copy
import math
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache

import torch
from torch import Tensor, nn
from torch.export import ExportedProgram
from torch.utils import _pytree as pytree

from tests.folding.collection.counting import Census, census
from tests.folding.collection.registry import DynamicShapes, Network, Sample

# A fold: the model, its example inputs, its dynamic shapes ▶ a program.
Folder = Callable[[nn.Module, tuple[Tensor, ...], DynamicShapes | None], ExportedProgram]

# max|Δ| / max|reference|. The float64 bound is the design's; the others are their roundings, with room.
TOLERANCES = {torch.float64: 1e-10, torch.float32: 1e-4, torch.half: 2e-2, torch.bfloat16: 1e-1}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What became of one network.

    Attributes:
        before: Affine maps of the original.
        after: Affine maps of the folded program.
        error: The largest max|Δ| / max|reference| of all outputs and probes; NaN: not a number anywhere.
        complaints: What is wrong, in words; empty: nothing.
    """

    before: int
    after: int
    error: float
    complaints: tuple[str, ...]


@contextmanager
def quiet() -> Iterator[None]:
    """Without torch.export's warning of its own deprecated tree specifications."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", category=FutureWarning, message=".*LeafSpec.*")
        yield


def exported(model: nn.Module, inputs: tuple[Tensor, ...], dynamic: DynamicShapes | None) -> ExportedProgram:
    """The model as a program, nothing folded."""
    with quiet():
        return torch.export.export(model, inputs, dynamic_shapes=dynamic)


def outputs_of(model: Callable[..., object], inputs: tuple[Tensor, ...]) -> list[Tensor]:
    """The output tensors, in the order of their structure. The inputs are not modified."""
    with torch.no_grad():
        results = model(*(x.clone() for x in inputs))
    return [leaf for leaf in pytree.tree_leaves(results) if isinstance(leaf, Tensor)]


def relative_error(outputs: list[Tensor], references: list[Tensor]) -> float:
    """The largest max|Δ| / max|reference|; infinite where shapes or the number of outputs differ."""
    if len(outputs) != len(references):
        return math.inf
    return max(_relative(a.double(), b) for a, b in zip(outputs, references, strict=True))


def _relative(output: Tensor, reference: Tensor) -> float:
    if output.shape != reference.shape:
        return math.inf
    difference, size = float((output - reference).abs().max()), float(reference.abs().max())
    if math.isnan(difference):
        return math.inf
    return difference / size if size else difference


@lru_cache
def _original(network: Network, dtype: torch.dtype) -> Census:
    sample = network.build(dtype)
    return census(exported(*sample), sample.inputs)


def judge(
    network: Network, fold: Folder, dtype: torch.dtype = torch.float64, *, fewest: bool = True
) -> Verdict:
    """Fold ``network`` in ``dtype`` and compare with its float64 original on all probes.

    Args:
        network: From the collection.
        fold: What is judged.
        dtype: Of the model that is folded.
        fewest: Whether exactly the fewest maps must be left; else only no more than there were.
    """
    sample = network.build(dtype)
    before = _original(network, dtype)
    kept = copy.deepcopy(sample.model)
    program = fold(*sample)
    after = census(program, sample.inputs)
    error = _error(network, program, dtype)
    complaints = [
        *_counting_complaints(network.fewest if fewest else None, before, after),
        *_program_complaints(program, sample, dtype),
        *_modified(kept, sample.model),
    ]
    if not error <= TOLERANCES[dtype]:
        complaints.append(f"error {error:.1e}, allowed are {TOLERANCES[dtype]:.0e}")
    return Verdict(before.affine_maps, after.affine_maps, error, tuple(complaints))


def _error(network: Network, program: ExportedProgram, dtype: torch.dtype) -> float:
    reference = network.build(torch.float64).model
    with quiet():
        folded = program.module()
    return max(_error_on(probe, folded, reference) for probe in network.probes(dtype))


def _error_on(probe: tuple[Tensor, ...], folded: nn.Module, reference: nn.Module) -> float:
    """Infinite where the folded program does not take the probe at all: its sizes were frozen."""
    wide = tuple(x.double() if x.is_floating_point() else x for x in probe)
    try:
        return relative_error(outputs_of(folded, probe), outputs_of(reference, wide))
    except (RuntimeError, AssertionError):
        return math.inf


def _counting_complaints(fewest: int | None, before: Census, after: Census) -> Iterator[str]:
    if fewest is not None and after.affine_maps != fewest:
        yield f"{after.affine_maps} affine maps left, the fewest are {fewest}"
    if after.affine_maps > before.affine_maps:
        yield f"{before.affine_maps} affine maps became {after.affine_maps}"
    if after.heavy > before.heavy or after.macs > before.allowance:
        yield f"computes more: {before.heavy} layers became {after.heavy}, {before.macs} MACs {after.macs}"
    if after.constant_maps > before.affine_maps + before.constant_maps:
        yield f"{after.constant_maps} constant maps for {before.affine_maps} affine maps"
    if after.signs > before.affine_maps + before.signs:
        yield f"{after.signs} signs for {before.affine_maps} affine maps"
    if after.activations > before.activations:
        yield f"{before.activations} activations became {after.activations}"


def _program_complaints(program: ExportedProgram, sample: Sample, dtype: torch.dtype) -> Iterator[str]:
    with quiet():
        outputs = outputs_of(program.module(), sample.inputs)
    if any(output.dtype is not dtype for output in outputs if output.is_floating_point()):
        yield f"{dtype} became {', '.join(str(output.dtype) for output in outputs)}"


def _modified(kept: nn.Module, model: nn.Module) -> Iterator[str]:
    before, after = kept.state_dict(), model.state_dict()
    same = before.keys() == after.keys() and all(torch.equal(before[k], after[k]) for k in before)
    layout = [type(m) for m in kept.modules()] == [type(m) for m in model.modules()]
    if not (same and layout) or kept.training != model.training:
        yield "the model passed in was modified"
