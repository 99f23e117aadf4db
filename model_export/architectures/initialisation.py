"""Initial weights for deep networks with ReLUs."""

from __future__ import annotations

from torch import nn


def initialise(model: nn.Module) -> None:
    """He-normal weights for the convolutions, small normal ones for the last layer. Modifies ``model``.

    Source: He et al. 2015, Delving Deep into Rectifiers, section 2.2 (the backward case: fan out).
    """
    for module in model.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Linear):
            nn.init.normal_(module.weight, std=0.01)
            nn.init.zeros_(module.bias)
