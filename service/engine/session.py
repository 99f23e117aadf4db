"""One session: loading, checking, warming, testing, running."""

from __future__ import annotations

import hashlib
import logging
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from service.artifact import (
    INPUT_NAME,
    LOGITS_NAME,
    PROBABILITIES_NAME,
    ModelMetadata,
    Task,
    parse_metadata,
    parse_sidecar,
    sidecar_path,
)
from service.engine.hardware import available_cpus
from service.engine.providers import NAMES, Kind, Provider, chain, has_driver, missing_part
from service.errors import (
    ContractMismatch,
    InferenceFailed,
    InvalidFile,
    LoadFailed,
    ModelRejected,
    ProviderUnavailable,
    RequestError,
    SelfTestFailed,
)
from service.images import decode

logger = logging.getLogger(__name__)

_READ_BYTES = 1 << 20
# Softmax and sigmoid in the graph against the same in float64; half precision inside stays below it.
_PROBABILITY_TOLERANCE = 5e-3
_OUTPUTS = (LOGITS_NAME, PROBABILITIES_NAME)


@dataclass(frozen=True, slots=True)
class EngineOptions:
    """How sessions are built.

    Attributes:
        provider: The execution provider asked for.
        threads: Threads of one inference; None: as many CPUs as the process may use.
        max_batch_size: Largest batch that will be run.
        allow_spinning: Whether the session's threads wait for work by spinning: a little faster for a lone
            client, but the cores it takes are those that decode the next images.
    """

    provider: Provider = Provider.AUTO
    threads: int | None = None
    max_batch_size: int = 64
    allow_spinning: bool = False

    @property
    def buckets(self) -> tuple[int, ...]:
        """The batch sizes that are warmed: powers of two up to ``max_batch_size``, and that itself."""
        powers = (1 << power for power in range(self.max_batch_size.bit_length()))
        return tuple(sorted({*powers, self.max_batch_size}))


@dataclass(frozen=True, slots=True)
class SelfTestResult:
    """How far the session's logits are from those in the file."""

    instances: int
    max_abs_error: float
    relative_error: float  # max|Δ| / max|logit|
    tolerance: float


@dataclass(frozen=True, slots=True)
class Warmth:
    """How long one warm batch took."""

    batch_size: int
    seconds: float


class Engine:
    """A session that keeps the contract of `service.artifact`. Made by `Engine.load`.

    Attributes:
        path: The model file.
        metadata: What the file says of itself.
        sha256: Of the file's bytes.
        requested: The provider asked for.
        active: The one it runs on.
    """

    def __init__(
        self,
        session: onnxruntime.InferenceSession,
        *,
        path: Path,
        metadata: ModelMetadata,
        sha256: str,
        options: EngineOptions,
        active: Kind,
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.sha256 = sha256
        self.requested = options.provider
        self.active: Kind = active
        self._session = session
        self._buckets = options.buckets

    def __repr__(self) -> str:
        return f"<Engine {self.path} on {self.active}>"

    @classmethod
    def load(cls, path: Path, options: EngineOptions = EngineOptions()) -> Engine:
        """A session from a model file, on the provider asked for.

        Raises:
            InvalidFile: Unreadable, truncated, or not what its checksum promises.
            LoadFailed: The runtime cannot build a session from it.
            ContractMismatch: No metadata, or at odds with the graph or the file's name.
            ProviderUnavailable: ``cuda`` or ``tensorrt`` was asked for and is not to be had.
        """
        sha256 = _verified_digest(path)
        session, active = _open(path, options)
        metadata = parse_metadata(session.get_modelmeta().custom_metadata_map, path)
        _check_contract(session, metadata, path)
        return cls(session, path=path, metadata=metadata, sha256=sha256, options=options, active=active)

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one instance."""
        contract = self.metadata.input
        return contract.height, contract.width, contract.channels

    def run(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits and probabilities, float32 [N, K] each, of a batch.

        Args:
            pixels: uint8 [N, H, W, C], contiguous, N ≤ ``max_batch_size``; not modified.

        Raises:
            InferenceFailed: The runtime failed.
        """
        n = len(pixels)
        if self.active != "cpu":
            pixels = self._padded(pixels)
        try:
            logits, probabilities = self._session.run(_OUTPUTS, {INPUT_NAME: pixels})
        except Exception as error:  # onnxruntime's exceptions have no common ancestor but this
            raise InferenceFailed("the model failed on this batch") from error
        return logits[:n], probabilities[:n]

    def warm_up(self) -> tuple[Warmth, ...]:
        """Run every batch bucket twice (the first allocates); how long the second took.

        Raises:
            LoadFailed: The runtime failed.
        """
        generator = np.random.default_rng(0)
        return tuple(self._warm(generator, size) for size in self._buckets)

    def self_test(self) -> SelfTestResult:
        """Replay the file's own images through the decode path and this session.

        Raises:
            SelfTestFailed: Other logits than the file's beyond its tolerance for this kind of provider,
                another top-1, or probabilities that do not belong to the logits.
        """
        instances = self.metadata.selftest.instances
        tolerance = self.metadata.selftest.tolerance.get(self.active)
        if tolerance is None:
            raise SelfTestFailed(f"{self.path}: the self-test states no tolerance for {self.active}")
        expected = np.array([instance.logits for instance in instances], np.float64)
        logits, probabilities = self._replay()
        error = float(np.abs(logits - expected).max())
        relative = error / max(float(np.abs(expected).max()), float(np.finfo(np.float32).tiny))
        if not relative <= tolerance:  # also when it is no number
            raise SelfTestFailed(
                f"{self.path}: logits differ from the file's own by {relative:.3g} of the largest, "
                f"{tolerance:.3g} is allowed on {self.active}"
            )
        differing = np.flatnonzero(logits.argmax(axis=1) != expected.argmax(axis=1))
        if len(differing):
            raise SelfTestFailed(f"{self.path}: another top-1 label for self-test image {differing[0]}")
        self._check_probabilities(logits, probabilities)
        return SelfTestResult(len(instances), error, relative, tolerance)

    def _replay(self) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rows = [self._replay_one(instance.image) for instance in self.metadata.selftest.instances]
        return (
            np.concatenate([logits for logits, _ in rows]).astype(np.float64),
            np.concatenate([probabilities for _, probabilities in rows]).astype(np.float64),
        )

    def _replay_one(self, image: bytes) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        try:
            return self.run(decode(image, self.metadata.input)[np.newaxis])
        except RequestError as error:
            raise SelfTestFailed(f"{self.path}: a self-test image failed: {error}") from error

    def _check_probabilities(self, logits: NDArray[np.float64], probabilities: NDArray[np.float64]) -> None:
        exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
        expected = (
            exponentials / exponentials.sum(axis=1, keepdims=True)
            if self.metadata.task is Task.MULTICLASS
            else (1 + np.tanh(logits / 2)) / 2
        )
        error = float(np.abs(probabilities - expected).max())
        if not error <= _PROBABILITY_TOLERANCE:
            raise SelfTestFailed(
                f"{self.path}: probabilities are not the {self.metadata.task} function of the logits "
                f"(off by {error:.3g})"
            )

    def _warm(self, generator: np.random.Generator, size: int) -> Warmth:
        pixels = generator.integers(0, 256, (size, *self.input_shape), dtype=np.uint8)
        try:
            self.run(pixels)
            started = time.perf_counter()
            self.run(pixels)
        except InferenceFailed as error:
            raise LoadFailed(
                f"{self.path}: warm-up with {size} instances failed: {error.__cause__}"
            ) from error
        return Warmth(size, time.perf_counter() - started)

    def _padded(self, pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """On a GPU every new batch size costs a search for kernels, so only the warmed ones are run."""
        size = next(bucket for bucket in self._buckets if bucket >= len(pixels))
        if size == len(pixels):
            return pixels
        padded = np.zeros((size, *pixels.shape[1:]), np.uint8)
        padded[: len(pixels)] = pixels
        return padded


def _verified_digest(path: Path) -> str:
    """The file's SHA-256, as promised by its sidecar where it has one."""
    try:
        digest = _digest(path)
        promised = parse_sidecar(sidecar_path(path).read_text(encoding="ascii"), path)
    except FileNotFoundError as error:
        if error.filename == str(path):
            raise InvalidFile(f"{path}: no such file") from error
        logger.warning("%s: no checksum beside it, its bytes are taken on trust", path)
        return digest
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidFile(f"{path}: cannot be read: {error}") from error
    if digest != promised:
        raise InvalidFile(f"{path}: its SHA-256 is {digest}, its sidecar promises {promised}")
    return digest


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while chunk := file.read(_READ_BYTES):
            digest.update(chunk)
    return digest.hexdigest()


def _open(path: Path, options: EngineOptions) -> tuple[onnxruntime.InferenceSession, Kind]:
    """A session on the provider asked for, and the kind it got."""
    if options.provider is Provider.AUTO:
        return _open_best(path, options)
    kind = options.provider.kind
    fault = missing_part(kind)
    if fault is not None:
        raise ProviderUnavailable(f"execution provider {kind} was asked for, but {fault}")
    return _build(path, kind, options), kind


def _open_best(path: Path, options: EngineOptions) -> tuple[onnxruntime.InferenceSession, Kind]:
    """CUDA where it works; else the CPU, with a warning where it should have worked."""
    if has_driver():
        fault = missing_part("cuda")
        if fault is None:
            try:
                return _build(path, "cuda", options), "cuda"
            except ProviderUnavailable as error:
                fault = str(error)
        logger.warning("an NVIDIA driver is present, but inference runs on the CPU: %s", fault)
    return _build(path, "cpu", options), "cpu"


def _build(path: Path, kind: Kind, options: EngineOptions) -> onnxruntime.InferenceSession:
    try:
        session = onnxruntime.InferenceSession(
            str(path), _session_options(kind, options), providers=chain(kind), enable_fallback=0
        )
    except (ort_errors.InvalidProtobuf, ort_errors.NoSuchFile) as error:
        raise InvalidFile(f"{path}: {error}") from error
    except Exception as error:  # onnxruntime's exceptions have no common ancestor but this
        raise _build_fault(path, kind, error) from error
    active = session.get_providers()[0]
    if active != NAMES[kind]:
        raise ProviderUnavailable(f"execution provider {kind} was asked for, but {path} got {active}")
    return session


def _build_fault(path: Path, kind: Kind, error: Exception) -> ModelRejected | ProviderUnavailable:
    """Whose fault a failed build is: the file's, or the GPU's (then its message speaks of CUDA)."""
    message = str(error)
    if kind != "cpu" and ("CUDA" in message or "TensorRT" in message or "EP Error" in message):
        return ProviderUnavailable(f"execution provider {kind} was asked for, but it failed: {message}")
    return LoadFailed(f"{path}: the runtime cannot build a session: {message}")


def _session_options(kind: Kind, options: EngineOptions) -> onnxruntime.SessionOptions:
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = (options.threads or available_cpus()) if kind == "cpu" else 1
    settings.inter_op_num_threads = 1
    settings.log_severity_level = 3  # errors; a model's harmless warnings are not the operator's business
    settings.add_session_config_entry("session.intra_op.allow_spinning", str(int(options.allow_spinning)))
    return settings


def _check_contract(session: onnxruntime.InferenceSession, metadata: ModelMetadata, path: Path) -> None:
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
    outputs = dict.fromkeys(_OUTPUTS, ("tensor(float)", (classes,)))
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
