"""What a model file must be before a session of it may run: the bytes promised, and the graph described."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping, Sequence
from pathlib import Path

import onnxruntime

from service.artifact import (
    INPUT_NAME,
    LOGITS_NAME,
    PROBABILITIES_NAME,
    ModelMetadata,
    parse_sidecar,
    sidecar_path,
)
from service.errors import ContractMismatch, InvalidFile

logger = logging.getLogger(__name__)

OUTPUTS = (LOGITS_NAME, PROBABILITIES_NAME)


def verified_digest(path: Path) -> str:
    """The file's SHA-256, as promised by its sidecar where it has one.

    Raises:
        InvalidFile: It cannot be read, or its sidecar promises something else.
    """
    try:
        digest = digest_of(path)
        text = _sidecar_text(path)
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFile(f"{path}: cannot be read: {error}") from error
    if text is None:
        logger.warning("%s: no checksum beside it, its bytes are taken on trust", path)
        return digest
    promised = parse_sidecar(text, path)
    if digest != promised:
        raise InvalidFile(f"{path}: its SHA-256 is {digest}, its sidecar promises {promised}")
    return digest


def identity(path: Path) -> tuple[int, int, int]:
    """What changes when somebody replaces or writes the file: inode, size and time.

    Raises:
        InvalidFile: There is no such file.
    """
    try:
        status = path.stat()
    except OSError as error:
        raise InvalidFile(f"{path}: no such file") from error
    return status.st_ino, status.st_size, status.st_mtime_ns


def _sidecar_text(path: Path) -> str | None:
    try:
        return sidecar_path(path).read_text(encoding="ascii")
    except FileNotFoundError:
        return None


def digest_of(path: Path) -> str:
    """The SHA-256 of a file's bytes, as `sha256sum` writes it.

    Raises:
        OSError: It cannot be read.
    """
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def check_contract(session: onnxruntime.InferenceSession, metadata: ModelMetadata, path: Path) -> None:
    """The graph is the one that the metadata describes, in the precision that the file's name says.

    Raises:
        ContractMismatch: It is not; the message says what was expected and what there is.
    """
    if path.name != metadata.precision.file_name:
        raise ContractMismatch(
            f"{path}: holds {metadata.precision} weights, the file name for which is "
            f"{metadata.precision.file_name}"
        )
    contract, classes = metadata.input, len(metadata.labels)
    instance = (contract.height, contract.width, contract.channels)
    _check_tensors(path, "input", session.get_inputs(), {INPUT_NAME: ("tensor(uint8)", instance)})
    outputs = dict.fromkeys(OUTPUTS, ("tensor(float)", (classes,)))
    _check_tensors(path, "output", session.get_outputs(), outputs)


def _check_tensors(
    path: Path,
    role: str,
    tensors: Sequence[onnxruntime.NodeArg],
    expected: Mapping[str, tuple[str, tuple[int, ...]]],
) -> None:
    found = {tensor.name: (tensor.type, tensor.shape) for tensor in tensors}
    if found.keys() != expected.keys():
        raise ContractMismatch(f"{path}: the graph's {role}s are {sorted(found)}, not {sorted(expected)}")
    for name, (kind, shape) in found.items():
        wanted_kind, wanted_shape = expected[name]
        is_batched = bool(shape) and not isinstance(shape[0], int)
        if kind != wanted_kind or not is_batched or tuple(shape[1:]) != wanted_shape:
            raise ContractMismatch(
                f"{path}: {role} '{name}' is {kind} {shape}, "
                f"the metadata describes {wanted_kind} {['batch', *wanted_shape]}"
            )
