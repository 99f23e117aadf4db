"""Changing pictures in ways that do not change what they show."""

from __future__ import annotations

from typing import Final

import torch
from torch import Tensor

from model_export.config import TrainConfig

_REACH: Final = 8  # a shift is at most 1/8 of the side: the usual 4 pixels of CIFAR's 32


def augment(images: Tensor, config: TrainConfig, generator: torch.Generator) -> Tensor:
    """A changed copy of ``images``, or ``images`` itself where ``config`` wants no change.

    Args:
        images: uint8 [N, H, W, C], not modified.
        config: Which changes.
        generator: Decides them.
    """
    if config.augmentation == "none":
        return images
    shifted = _shifted(images, generator)
    return _mirrored(shifted, generator) if config.augmentation == "shift_flip" else shifted


def _shifted(images: Tensor, generator: torch.Generator) -> Tensor:
    """Each picture moved by its own offset; what comes in from outside is zero."""
    number, height, width, channels = images.shape
    reach_y, reach_x = height // _REACH, width // _REACH
    padded = images.new_zeros(number, height + 2 * reach_y, width + 2 * reach_x, channels)
    padded[:, reach_y : reach_y + height, reach_x : reach_x + width] = images
    top = torch.randint(0, 2 * reach_y + 1, (number, 1), generator=generator)
    left = torch.randint(0, 2 * reach_x + 1, (number, 1), generator=generator)
    rows, columns = top + torch.arange(height), left + torch.arange(width)
    return padded[torch.arange(number)[:, None, None], rows[:, :, None], columns[:, None, :]]


def _mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    chosen = torch.rand(len(images), generator=generator) < 0.5
    return torch.where(chosen[:, None, None, None], images.flip(2), images)
