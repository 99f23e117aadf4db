"""The networks that can be asked for by name, and the loading of anybody's.

Every network takes float32 [N, C, H, W], already normalised, and returns logits [N, K].
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from types import MappingProxyType

import torch
from torch import nn

from model_export.architectures.article_cnn import ArticleCnn
from model_export.architectures.densenet import DenseNet121
from model_export.architectures.foreign import (
    check_network,
    check_stranger,
    import_factory,
    require_logits,
)
from model_export.architectures.mobilenet import MobileNetV2
from model_export.architectures.repvgg import RepVggA0
from model_export.architectures.resnet import BasicBlock, Bottleneck, CifarResNet, PreactResNet18, ResNet
from model_export.architectures.vgg import Vgg11Bn
from model_export.architectures.weights import load_weights
from model_export.config import ModelConfig
from model_export.errors import ModelError
from model_export.layers import batch_norms
from model_export.records import TrainingPlan

__all__ = ["ARCHITECTURES", "PLANNABLE", "build", "load", "require_logits"]

Builder = Callable[[tuple[int, int, int], int], nn.Module]

ARCHITECTURES: Mapping[str, Builder] = MappingProxyType(
    {
        "article_cnn": ArticleCnn,
        "resnet18": partial(ResNet, BasicBlock, (2, 2, 2, 2)),
        "resnet34": partial(ResNet, BasicBlock, (3, 4, 6, 3)),
        "resnet50": partial(ResNet, Bottleneck, (3, 4, 6, 3)),
        "cifar_resnet20": partial(CifarResNet, 20),
        "cifar_resnet32": partial(CifarResNet, 32),
        "cifar_resnet56": partial(CifarResNet, 56),
        "mobilenet_v2": MobileNetV2,
        "densenet121": DenseNet121,
        "vgg11_bn": Vgg11Bn,
        "repvgg_a0": RepVggA0,
        "preact_resnet18": PreactResNet18,
    }
)

# Those whose BatchNorms a plan may place.
PLANNABLE: Mapping[str, type[ArticleCnn]] = MappingProxyType({"article_cnn": ArticleCnn})


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
    model = ARCHITECTURES[name](input_shape, classes)
    check_network(model, name, input_shape, classes)
    return model


def load(
    config: ModelConfig,
    *,
    input_shape: tuple[int, int, int],
    classes: int,
    seed: int = 0,
    plan: TrainingPlan | None = None,
) -> nn.Module:
    """The network that ``config`` asks for, with its weights if it names some.

    Args:
        config: An architecture of ours, or anybody's factory; a file of weights.
        input_shape: C, H, W.
        classes: K, the number of logits.
        seed: Of the initial weights.
        plan: What its BatchNorms are to be like; None: as the architecture has them.

    Raises:
        ModelError: It cannot be built, takes no such pictures, gives no K logits, or its weights do not fit.
    """
    with torch.random.fork_rng(devices=()):
        torch.manual_seed(seed)
        if config.model is not None:
            model = import_factory(config.model)()
            check_stranger(model, config.model, input_shape, classes)
        elif plan is not None and plan.placements:
            model = PLANNABLE[config.architecture](input_shape, classes, plan.placements)
        else:
            model = build(config.architecture, input_shape=input_shape, classes=classes)
    if plan is not None:
        _follow(plan, model)
    if config.weights is not None:
        load_weights(model, config.weights)
    return model


def _follow(plan: TrainingPlan, model: nn.Module) -> None:
    for norm in batch_norms(model):
        norm.momentum = 1 - plan.momentum  # torch's convention
        norm.eps = norm.eps if plan.epsilon is None else plan.epsilon
