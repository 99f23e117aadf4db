"""The network in the forms that stages need: traced, and folded for batches of any size."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from model_export.folding import FoldResult, fold
from model_export.folding.trace import traced
from model_export.records import Objective

_BATCH = ({0: Dim("batch")},)


def trace(network: nn.Module, input_shape: tuple[int, int, int]) -> ExportedProgram:
    """``network`` as a program, nothing folded.

    Args:
        network: Evaluating.
        input_shape: C, H, W.

    Raises:
        ModelError: It cannot be traced.
    """
    return traced(network, (_example(network, input_shape),), _BATCH)


def folded(network: nn.Module, input_shape: tuple[int, int, int], objective: Objective) -> FoldResult:
    """``network`` folded.

    Args:
        network: Evaluating. Not modified.
        input_shape: C, H, W.
        objective: As `folding.fold` takes it.

    Raises:
        FoldRefused: A BatchNorm that is no constant affine map.
        ModelError: The network cannot be traced.
    """
    example = _example(network, input_shape)
    return fold(network, (example,), objective=objective, dynamic_shapes=_BATCH)


def _example(network: nn.Module, input_shape: tuple[int, int, int]) -> Tensor:
    """Two instances, since torch.export takes a batch of one for a constant."""
    dtype = next((parameter.dtype for parameter in network.parameters()), torch.float32)
    generator = torch.Generator().manual_seed(0)
    return torch.randn((2, *input_shape), generator=generator, dtype=dtype)
