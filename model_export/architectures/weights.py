"""Weights from a file: safetensors, or torch's own format read without running any code in it."""

from __future__ import annotations

import re
import warnings
import zipfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import BinaryIO

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

from model_export.errors import ModelError

_WRAPPED = re.compile(r"^(module\.|_orig_mod\.)+")  # what DataParallel and torch.compile put before keys
_PLACES = ("state_dict", "model_state_dict", "model")  # of the weights in a checkpoint that holds more
_OLD_TORCH = b"\x80\x02\x8a\x0a"  # a pickled long: what torch wrote first before it wrote zip files
_NAMED = 5  # keys that a message names


def load_weights(model: nn.Module, file: Path) -> None:
    """Puts the state dict in ``file`` into ``model``, every key and no other.

    Args:
        model: Modified.
        file: A state dict, plain or in a checkpoint that holds more; as `read_state` finds it.

    Raises:
        ModelError: No such file, neither format, keys or shapes that do not fit, or values that are no
            numbers; the message names them.
    """
    state = read_state(file)
    wrong = _wrong_shapes(model, state)
    if wrong:
        raise ModelError(
            f"{file} does not fit the network: {_listed('of another shape', wrong)}; if it was made for "
            "other labels or pictures, name them with --labels FILE and --input CxHxW"
        )
    broken = [key for key, value in state.items() if value.isnan().any()]  # infinite is what a mask may be
    if broken:
        reason = _listed("with values that are no numbers", broken)
        raise ModelError(f"{file}: {reason}; its training diverged")
    result = model.load_state_dict(state, strict=False)
    complaints = [
        _listed(what, keys)
        for what, keys in (("missing", result.missing_keys), ("unexpected", result.unexpected_keys))
        if keys
    ]
    if complaints:
        raise ModelError(f"{file} does not fit the network: {'; '.join(complaints)}")


def read_state(file: Path) -> dict[str, Tensor]:
    """The state dict in ``file``, plain or under the names that checkpoints have for it.

    Its keys come without a leading ``module.`` or ``_orig_mod.``.

    Raises:
        ModelError: No such file, neither format, or something else than a state dict.
    """
    content = _read_torch(file) if _is_torch(file) else _read_safetensors(file)
    if isinstance(content, Mapping):
        content = next((content[key] for key in _PLACES if isinstance(content.get(key), Mapping)), content)
    if not isinstance(content, Mapping) or not content:
        raise ModelError(f"{file}: holds a {type(content).__name__}, not a state dict")
    stranger = next((key for key, value in content.items() if not isinstance(value, Tensor)), None)
    if stranger is not None:
        raise ModelError(f"{file}: '{stranger}' is no tensor; save the network's state_dict()")
    return {_WRAPPED.sub("", str(key)): value for key, value in content.items()}


def _is_torch(file: Path) -> bool:
    try:
        with file.open("rb") as stream:
            return zipfile.is_zipfile(stream) or _starts_with(stream, _OLD_TORCH)
    except OSError as error:
        raise ModelError(f"{file}: cannot be read ({error.strerror})") from error


def _starts_with(stream: BinaryIO, beginning: bytes) -> bool:
    stream.seek(0)
    return stream.read(len(beginning)) == beginning


def _read_torch(file: Path) -> object:
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that this may be a network of TorchScript: it is refused
            return torch.load(file, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's unpickler raises whatever the bytes lead it to
        raise ModelError(
            f"{file}: not a file of plain weights (it is damaged, or holds a whole pickled network: save "
            "its state_dict() instead)"
        ) from error


def _read_safetensors(file: Path) -> dict[str, Tensor]:
    try:
        return load_file(file)
    except SafetensorError as error:
        raise ModelError(f"{file}: neither a safetensors nor a torch file ({error})") from error


def _wrong_shapes(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    return [
        f"{key} {tuple(state[key].shape)} for {tuple(value.shape)}"
        for key, value in model.state_dict().items()
        if key in state and state[key].shape != value.shape
    ]


def _listed(what: str, keys: Sequence[str]) -> str:
    more = f" and {len(keys) - _NAMED} more" if len(keys) > _NAMED else ""
    return f"{what}: {', '.join(keys[:_NAMED])}{more}"
