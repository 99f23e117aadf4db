"""Networks of other people: found by name, and tried once before any work is done with them."""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Final

import torch
from torch import Tensor, nn

from model_export.errors import ModelError
from model_export.layers import evaluating

_WRAPPERS: Final = (nn.DataParallel, nn.parallel.DistributedDataParallel)
_SUM_TOLERANCE: Final = 1e-3  # of the probabilities of a picture


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
    except (Exception, SystemExit) as error:  # whatever a stranger's code raises; a script may even exit
        reason = f"{type(error).__name__}: {error}"
        raise ModelError(f"--model {path}: importing {module_name} failed: {reason}") from error
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
        return _unwrapped(model).float()  # what the file computes in, whatever the weights are kept in

    return made


def _unwrapped(model: nn.Module) -> nn.Module:
    """Without what `torch.compile` and the parallel wrappers put around a network: it cannot be traced."""
    inner = model.module if isinstance(model, _WRAPPERS) else getattr(model, "_orig_mod", None)
    return _unwrapped(inner) if isinstance(inner, nn.Module) else model


def check_network(model: nn.Module, name: str, input_shape: tuple[int, int, int], classes: int) -> Tensor:
    """The logits of two black pictures, the network evaluating; its mode is restored afterwards.

    Raises:
        ModelError: It cannot take pictures of this shape, or does not return K logits for each.
    """
    try:
        # Not in inference mode: a lazy layer makes its parameters now, and they are to learn.
        with evaluating(model), torch.no_grad():
            logits: Tensor = model(torch.zeros(2, *input_shape))
    except Exception as error:  # whatever a stranger's code raises
        shape = "x".join(map(str, input_shape))
        raise ModelError(f"{name} cannot take {shape} pictures: {type(error).__name__}: {error}") from error
    require_logits(logits, name, instances=2, classes=classes)
    return logits


def check_stranger(model: nn.Module, name: str, input_shape: tuple[int, int, int], classes: int) -> None:
    """Tries a network that nobody here knows as `check_network` does, and what its answers are.

    Raises:
        ModelError: As there; or it ends in a softmax, which training and the model file put behind it; or it
            does not say the same twice.
    """
    answers, again = (check_network(model, name, input_shape, classes) for _ in range(2))
    if not torch.allclose(answers, again, equal_nan=True):
        raise ModelError(
            f"{name} gives the same pictures another answer each time; it must use no dropout and no noise "
            "while it evaluates"
        )
    sums = answers.sum(dim=1)
    if answers.min() >= 0 and torch.allclose(sums, torch.ones_like(sums), atol=_SUM_TOLERANCE):
        raise ModelError(
            f"{name} returns probabilities (they sum to one); leave its softmax out and return the logits"
        )


def require_logits(output: object, name: str, *, instances: int, classes: int) -> None:
    """Checks that ``output`` is one logit a label for each instance.

    Raises:
        ModelError: It is not; the message says what it is.
    """
    if not isinstance(output, Tensor) or output.shape != (instances, classes):
        found = tuple(output.shape) if isinstance(output, Tensor) else f"a {type(output).__name__}"
        raise ModelError(
            f"{name} must return logits of shape (N, {classes}), one a label; for N = {instances}: {found}"
        )
