"""Writing and reading ``model.onnx``: metadata, the ONNX checker, the checksum beside it."""

from __future__ import annotations

import hashlib
import os
import subprocess
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

import onnx
import onnx_ir as ir
import torch

from model_export.errors import ModelError
from service.artifact import ModelMetadata, Producer, format_sidecar, parse_metadata, sidecar_path


def producer(graph: ir.Model, *, torch_version: str | None = torch.__version__) -> Producer:
    """Who made the file, with what.

    Args:
        graph: For its opset.
        torch_version: None for a network that was not made with torch.
    """
    return Producer(
        foldserve=_version(),
        git_commit=_git_commit(),
        torch=torch_version,
        onnx=onnx.__version__,
        opset=graph.opset_imports[""],
    )


def write_model_file(graph: ir.Model, path: Path, metadata: ModelMetadata | None = None) -> str:
    """Writes ``graph`` with ``metadata`` and its checksum file, durably.

    Args:
        graph: As `served_graph` makes it. Its metadata is replaced.
        path: ``model.onnx``, or that of another precision.
        metadata: None: a file to be measured, before anything can be said about it.

    Returns:
        The file's sha256.

    Raises:
        ModelError: The ONNX checker rejects the graph.
    """
    graph.metadata_props.clear()
    graph.metadata_props.update(metadata.to_props() if metadata is not None else {})
    proto = ir.to_proto(graph)
    try:
        onnx.checker.check_model(proto, full_check=True)
    except (onnx.checker.ValidationError, onnx.shape_inference.InferenceError) as error:
        raise ModelError(f"the ONNX checker rejects the graph: {error}") from error
    data = proto.SerializeToString()
    digest = hashlib.sha256(data).hexdigest()
    _write_durably(path, data)
    _write_durably(sidecar_path(path), format_sidecar(digest, path).encode())
    return digest


def read_model_file(path: Path) -> tuple[ir.Model, ModelMetadata]:
    """The graph and the metadata of a model file.

    Raises:
        ModelError: It is no ONNX file.
        ContractMismatch: It has no valid metadata.
    """
    try:
        graph = ir.load(path)
    except Exception as error:  # protobuf raises whatever its C++ side throws
        raise ModelError(f"{path}: not an ONNX file: {error}") from error
    return graph, parse_metadata(dict(graph.metadata_props), path)


def _write_durably(path: Path, data: bytes) -> None:
    with path.open("wb") as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())


def _version() -> str:
    """This package's version; a checkout that was never installed has none to tell."""
    try:
        return version("foldserve")
    except PackageNotFoundError:
        return "0+source"


def _git_commit() -> str | None:
    """The commit of the checkout that this code runs from, None where it is installed."""
    root = Path(__file__).resolve().parents[2]
    if not (root / ".git").exists():
        return None
    try:
        answer = subprocess.run(
            ["git", "rev-parse", "HEAD"],  # noqa: S607 - whichever git the user has
            cwd=root,
            capture_output=True,
            text=True,
            timeout=5,
            check=True,
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return answer.stdout.strip() or None
