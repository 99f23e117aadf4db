"""Where training runs, and in which precision."""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import torch
from torch import Tensor

from model_export.config import TrainConfig
from model_export.errors import InvalidConfig


def device_for(config: TrainConfig) -> torch.device:
    """The device that ``config`` asks for.

    Raises:
        InvalidConfig: CUDA, or what only CUDA has, is asked for and not there.
    """
    has_cuda = torch.cuda.is_available()
    if config.device == "cuda" and not has_cuda:
        raise InvalidConfig("--device cuda: this machine, or this build of torch, has no CUDA")
    device = torch.device("cuda" if has_cuda and config.device != "cpu" else "cpu")
    if config.mixed_precision and device.type != "cuda":
        raise InvalidConfig("--mixed-precision: only with CUDA; a CPU gains nothing from it")
    return device


class Precision:
    """Full precision, or half of it where that is safe, with the losses scaled where they need it.

    bfloat16 has float32's range, so nothing underflows; older devices only have float16, whose
    gradients are scaled up before and down after.

    Args:
        device: Where the network is.
        is_mixed: Whether half precision is wanted.
    """

    def __init__(self, device: torch.device, *, is_mixed: bool) -> None:
        self._device = device
        self._is_mixed = is_mixed
        self._dtype = torch.bfloat16
        if is_mixed and not torch.cuda.is_bf16_supported():
            self._dtype = torch.float16
        self._scaler = torch.amp.GradScaler(device.type, enabled=is_mixed and self._dtype is torch.float16)

    def autocast(self) -> AbstractContextManager[object]:
        """Within it, operators choose their precision."""
        return torch.autocast(self._device.type, self._dtype, enabled=self._is_mixed)

    def step(self, loss: Tensor, optimizer: torch.optim.Optimizer) -> None:
        """Gradients of ``loss``, and one step of ``optimizer``."""
        self._scaler.scale(loss).backward()  # type: ignore[no-untyped-call]  # torch leaves it unannotated
        self._scaler.step(optimizer)
        self._scaler.update()

    def state(self) -> dict[str, Any]:
        """The scale and how long it has held."""
        return self._scaler.state_dict()

    def restore(self, state: dict[str, Any]) -> None:
        """Back to where `state` was called."""
        self._scaler.load_state_dict(state)
