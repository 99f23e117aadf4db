"""A module from named parts and one expression: small networks stay a few lines long."""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn

Output = Tensor | tuple[Tensor, ...] | list[Tensor] | dict[str, Tensor]


class Wired(nn.Module):
    """``Wired(lambda m, x: m.bn(x) + x, bn=…)``: the parts are attributes of ``m``.

    Args:
        expression: The forward pass, from the module and its input.
        parts: Submodules, and constants [any shape] that become buffers.
    """

    def __init__(self, expression: Callable[..., Output], **parts: nn.Module | Tensor) -> None:
        super().__init__()
        self.expression = expression
        for name, part in parts.items():
            if isinstance(part, nn.Module):
                self.add_module(name, part)
            else:
                self.register_buffer(name, part)

    def forward(self, x: Tensor) -> Output:
        """The expression of one input."""
        return self.expression(self, x)


class WiredPair(Wired):
    """The same with two inputs: ``WiredPair(lambda m, x, y: …, …)``."""

    def forward(self, x: Tensor, y: Tensor) -> Output:  # type: ignore[override]  # one input more, on purpose
        """The expression of two inputs."""
        return self.expression(self, x, y)


def per_channel(values: Tensor, rank: int = 4) -> Tensor:
    """[C] as [1, C, 1, …] of ``rank`` axes, ready to be broadcast over images."""
    return values.reshape(1, -1, *[1] * (rank - 2))
