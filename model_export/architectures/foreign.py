"""Networks of other people: found by name, and tried once before any work is done with them."""

from __future__ import annotations

import importlib
from collections.abc import Callable

import torch
from torch import Tensor, nn

from model_export.errors import ModelError


def import_factory(path: str) -> Callable[[], nn.Module]:
    """The callable at ``package.module:factory``, which is asked without arguments for a network.

    Args:
        path: Importable from where the program was started.

    Raises:
        ModelError: No such module or name in it; or, when it is called, no network comes out.
    """
    module_name, colon, name = path.partition(":")
    if not (module_name and colon and name):
        raise ModelError(f"--model {path}: write it as package.module:factory")
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise ModelError(f"--model {path}: cannot import {module_name} ({error})") from error
    factory = getattr(module, name, None)
    if not callable(factory):
        raise ModelError(f"--model {path}: {module_name} has no callable '{name}'")

    def made() -> nn.Module:
        try:
            model = factory()
        except Exception as error:  # whatever a stranger's code raises
            raise ModelError(f"--model {path}: {name}() failed: {type(error).__name__}: {error}") from error
        if not isinstance(model, nn.Module):
            raise ModelError(f"--model {path}: {name}() gave a {type(model).__name__}, not an nn.Module")
        return model.float()  # what the file computes in, whatever the weights are kept in

    return made


def check_network(model: nn.Module, name: str, input_shape: tuple[int, int, int], classes: int) -> None:
    """Tries two pictures, the network evaluating; its mode is restored afterwards.

    Raises:
        ModelError: It cannot take pictures of this shape, or does not return K logits for each.
    """
    modes = {part: part.training for part in model.modules()}
    model.eval()
    try:
        with torch.inference_mode():
            logits = model(torch.zeros(2, *input_shape))
    except Exception as error:  # whatever a stranger's code raises
        shape = "x".join(map(str, input_shape))
        raise ModelError(f"{name} cannot take {shape} pictures: {type(error).__name__}: {error}") from error
    finally:
        for part, mode in modes.items():
            part.training = mode
    if not isinstance(logits, Tensor) or logits.shape != (2, classes):
        found = tuple(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ModelError(
            f"{name} must return logits of shape (N, {classes}), one a label; for N = 2: {found}"
        )
