"""Running statistics estimated anew, the weights fixed.

::

    training leaves     moving averages, weighted towards the last batches, of changing weights
    `recalibrate`       mean and variance over all given pictures, as the evaluating network sees them

    for each BatchNorm, in the order in which they run:
        evaluate up to it ─▶ n, Σx, Σ(x − mean)² of every channel over instances and positions
        set its running statistics, which everything behind it then sees

A BatchNorm is measured while those before it already evaluate with their final statistics. So the
result is what the evaluating network really meets, and it does not depend on how the pictures are
cut into batches. The price is one partial pass for each BatchNorm.

`adapt` does the same with pictures from where the network will be used; they need no labels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from numpy.typing import NDArray
from rich.console import Console
from rich.progress import track
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from model_export.errors import InvalidConfig
from model_export.layers import PixelNormalization, batch_norms
from service.artifact import InputContract

BATCH_SIZE = 128


@dataclass(slots=True)
class ChannelStatistics:
    """Mean and variance of each channel, gathered batch by batch in float64.

    Attributes:
        count: Values a channel so far: instances × positions.
        mean: float64 [C].
        deviation: Σ (x − mean)², float64 [C].
    """

    count: int = 0
    mean: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))
    deviation: Tensor = field(default_factory=lambda: torch.zeros((), dtype=torch.float64))

    def add(self, x: Tensor, axis: int) -> None:
        """Takes in a batch whose channels are at ``axis``.

        Source: Chan, Golub and LeVeque 1983, the pairwise formula.
        """
        values = x.detach().movedim(axis, 0).flatten(1).double()
        count, mean = values.shape[1], values.mean(dim=1)
        deviation = (values - mean[:, None]).square().sum(dim=1)
        total = self.count + count
        step = mean - self.mean
        self.deviation = self.deviation + deviation + step.square() * (self.count * count / total)
        self.mean = self.mean + step * (count / total)
        self.count = total

    @property
    def variance(self) -> Tensor:
        """Unbiased, as torch's own running variance is: Σ (x − mean)² / (n − 1)."""
        return self.deviation / (self.count - 1)


def recalibrate(model: nn.Module, batches: Sequence[Tensor], *, console: Console | None = None) -> None:
    """Sets every BatchNorm's running statistics to those of ``batches``. It is evaluating afterwards.

    A BatchNorm that runs several times gets the statistics of all its uses together. One that keeps no
    running statistics, or never runs, stays as it is.

    Args:
        model: Modified: running statistics only.
        batches: Normalised float32 [N, C, H, W] each; gone through once for each BatchNorm. How the
            instances are cut into batches does not matter.
        console: Where progress is shown; None: nowhere.

    Raises:
        InvalidConfig: There are no instances, or only one value for some channel.

    Source: Wu and Johnson 2021, Rethinking "Batch" in BatchNorm, section 3.
    """
    _replace_statistics(model, batches, prior_share=0.0, console=console)


def adapt(
    model: nn.Module,
    images: NDArray[np.uint8],
    contract: InputContract,
    *,
    prior: int = 0,
    console: Console | None = None,
) -> None:
    """Fits the running statistics to pictures without labels, from where the network will be used.

    Args:
        model: Modified: running statistics only. It is evaluating afterwards.
        images: uint8 [N, H, W, C].
        contract: Whose mean and std normalise.
        prior: For how many pictures the present statistics count; more than zero when there are few.
        console: Where progress is shown; None: nowhere.

    Raises:
        InvalidConfig: No pictures, or a negative prior.

    Source: Schneider et al. 2020, Improving robustness against common corruptions by covariate shift
    adaptation, eq. 2 (there, N is the prior).
    """
    if prior < 0:
        raise InvalidConfig(f"a prior of {prior} pictures: must be zero or more")
    share = prior / max(1, prior + len(images))
    _replace_statistics(model, PixelBatches(images, contract), prior_share=share, console=console)


class PixelBatches(Sequence[Tensor]):
    """Pictures as normalised batches, cut and computed when they are asked for.

    Args:
        images: uint8 [N, H, W, C].
        contract: Whose mean and std normalise.
        batch_size: Instances a batch.
    """

    def __init__(
        self, images: NDArray[np.uint8], contract: InputContract, batch_size: int = BATCH_SIZE
    ) -> None:
        self._images = images
        self._batch_size = batch_size
        self._normalise = PixelNormalization(contract.mean, contract.std)

    def __len__(self) -> int:
        return -(-len(self._images) // self._batch_size)

    def __getitem__(self, position: int) -> Tensor:  # type: ignore[override]  # slices are not needed
        if not 0 <= position < len(self):
            raise IndexError(position)
        start = position * self._batch_size
        batch: Tensor = self._normalise(torch.from_numpy(self._images[start : start + self._batch_size]))
        return batch


class _Reached(Exception):
    """The BatchNorm to be measured has been measured; the rest of the network need not run."""


def _replace_statistics(
    model: nn.Module, batches: Sequence[Tensor], *, prior_share: float, console: Console | None
) -> None:
    if sum(len(batch) for batch in batches) == 0:
        raise InvalidConfig("calibration needs pictures, and there are none")
    model.eval()
    with torch.inference_mode():
        uses = _uses(model, batches[0])
        for norm in track(list(uses), "calibrating", console=console or Console(quiet=True)):
            measured = ChannelStatistics()
            for batch in batches:
                _measure(model, batch, norm, uses[norm], measured)
            if measured.count < 2:
                raise InvalidConfig(
                    "calibration needs more than one picture for a BatchNorm without positions"
                )
            _blend(norm, measured, prior_share)


def _uses(model: nn.Module, batch: Tensor) -> dict[_BatchNorm, int]:
    """The BatchNorms with running statistics, in the order in which they first run, and how often."""
    uses: dict[_BatchNorm, int] = {}

    def count(norm: nn.Module, _: tuple[Tensor, ...]) -> None:
        if isinstance(norm, _BatchNorm):
            uses[norm] = uses.get(norm, 0) + 1

    norms = [norm for norm in batch_norms(model) if norm.track_running_stats]
    hooks = [norm.register_forward_pre_hook(count) for norm in norms]
    try:
        model(batch)
    finally:
        for hook in hooks:
            hook.remove()
    return uses


def _measure(
    model: nn.Module, batch: Tensor, norm: _BatchNorm, uses: int, statistics: ChannelStatistics
) -> None:
    left = uses

    def gather(_: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        nonlocal left
        statistics.add(inputs[0], _channel_axis(norm))
        left -= 1
        if left == 0:
            raise _Reached

    hook = norm.register_forward_pre_hook(gather)
    try:
        model(batch)
    except _Reached:
        pass
    finally:
        hook.remove()


def _channel_axis(norm: _BatchNorm) -> int:
    axis = getattr(norm, "axis", 1)
    return axis if isinstance(axis, int) else 1


def _blend(norm: _BatchNorm, measured: ChannelStatistics, prior_share: float) -> None:
    pairs = ((norm.running_mean, measured.mean), (norm.running_var, measured.variance))
    for kept, new in pairs:
        if kept is not None:
            kept.copy_(prior_share * kept.double() + (1 - prior_share) * new)
