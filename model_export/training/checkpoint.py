"""A training run on disk between two epochs: whole or not there, and never of another run.

::

    file ─ "run"     what decides the run: configuration, data, network; compared before resuming
         └ "state"   everything that the next epoch depends on
"""

from __future__ import annotations

import hashlib
import json
import os
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from model_export.config import TrainConfig
from model_export.data import ImageDataset
from model_export.errors import InvalidConfig

State = dict[str, Any]  # tensors and plain values; each part of a run knows its own

Identity = dict[str, str]


def identify(model: nn.Module, dataset: ImageDataset, config: TrainConfig) -> Identity:
    """What two runs must share to be the same one, as text to compare and to name.

    More epochs do not make another run, unless what an epoch does depends on their number.
    """
    flags = {f"--{name.replace('_', '-')}": json.dumps(value) for name, value in asdict(config).items()}
    if config.schedule == "constant" and config.fold_aware_epochs == 0:
        del flags["--epochs"]
    shapes = {name: tuple(value.shape) for name, value in model.state_dict().items()}
    pixels = hashlib.sha256(dataset.contract.model_dump_json().encode())
    for array in (dataset.train.images, dataset.train.targets):
        pixels.update(np.ascontiguousarray(array).data)
    return flags | {
        "network": hashlib.sha256(json.dumps(shapes).encode()).hexdigest(),
        "training data": pixels.hexdigest(),
        "threads": str(torch.get_num_threads()),  # sums are split among them, so they decide the last bits
    }


def save(file: Path, identity: Identity, state: State) -> None:
    """Replaces ``file`` in one step; a crash leaves the old one or the new one."""
    file.parent.mkdir(parents=True, exist_ok=True)
    part = file.with_name(f"{file.name}.part")
    with part.open("wb") as stream:
        torch.save({"run": identity, "state": state}, stream)
        stream.flush()
        os.fsync(stream.fileno())
    os.replace(part, file)


def load(file: Path, identity: Identity) -> State | None:
    """The state in ``file``; None if there is no such file.

    Raises:
        InvalidConfig: It is damaged, or of another run; the message says in what they differ.
    """
    if not file.exists():
        return None
    remedy = f"remove {file}, or go on as it was begun"
    try:
        content = torch.load(file, map_location="cpu", weights_only=True)
        found, state = content["run"], content["state"]
    except Exception as error:  # torch's unpickler raises whatever the bytes lead it to
        kind = type(error).__name__  # its text is about pickles
        raise InvalidConfig(f"{file}: a damaged checkpoint ({kind}); {remedy}") from error
    for name in identity.keys() | found.keys():
        if identity.get(name) != found.get(name):
            now, then = identity.get(name), found.get(name)
            raise InvalidConfig(f"{file}: begun with {name} {then}, asked for {now}; {remedy}")
    return dict(state)
