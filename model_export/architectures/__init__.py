"""The networks that can be asked for by name, and the loading of anybody's.

Every network takes float32 [N, C, H, W], already normalised, and returns logits [N, K].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from torch import nn

from model_export.architectures.article_cnn import ArticleCnn
from model_export.errors import ModelError

Builder = Callable[[tuple[int, int, int], int], nn.Module]

ARCHITECTURES: Mapping[str, Builder] = MappingProxyType(
    {
        "article_cnn": ArticleCnn,
    }
)


def build(name: str, *, input_shape: tuple[int, int, int], classes: int) -> nn.Module:
    """A freshly initialised network; torch's global generator decides its weights.

    Args:
        name: A key of `ARCHITECTURES`.
        input_shape: C, H, W.
        classes: K, the number of logits.

    Raises:
        ModelError: No such architecture, or it cannot take pictures of this shape.
    """
    if name not in ARCHITECTURES:
        raise ModelError(f"no architecture '{name}'; there are {', '.join(ARCHITECTURES)}")
    return ARCHITECTURES[name](input_shape, classes)
