"""One model file's engine: loading, warming, testing, running.

On several cores it has two sessions of the same file. The wide one runs a batch on all cores: it answers a
lone instance soonest. The narrow one runs a batch on the calling thread alone, and as many threads as there
are cores may call it at once: it answers most a second. ONNX Runtime sets the threads of a session once for
all, and two sessions share no weights, so they are in memory twice.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TypeAlias

import numpy as np
import onnxruntime
from numpy.typing import NDArray

from service.artifact import INPUT_NAME, ModelMetadata, Task, parse_metadata
from service.engine.binding import Bindings
from service.engine.contract import OUTPUTS, check_contract, identity, verified_digest
from service.engine.faults import needs_new_process
from service.engine.pinned import page_locked
from service.engine.providers import Provider
from service.engine.sessions import EngineOptions, OpenSession, open_session, shrink
from service.errors import (
    EngineLost,
    InferenceFailed,
    InvalidFile,
    LoadFailed,
    RequestError,
    SelfTestFailed,
)
from service.hardware import available_cpus, give_back_freed_memory
from service.images import decode

_Run: TypeAlias = Callable[[NDArray[np.uint8]], tuple[NDArray[np.float32], NDArray[np.float32]]]
# Softmax and sigmoid in the graph against the same in float64; half precision inside stays below it.
_PROBABILITY_TOLERANCE = 5e-3
# A lone instance faster than this on one thread costs less than the rest of its request. More threads
# would hardly speed it up, and the cores they take are those that receive and decode the others.
_LIGHT_S = 2e-4
_TRIALS = 5
# In a batch this long, what the first one allocates is lost in the noise.
_SLOW_S = 0.1
_DEFAULTS = EngineOptions()


@dataclass(frozen=True, slots=True)
class SelfTestResult:
    """How far the session's logits are from those in the file."""

    instances: int
    max_abs_error: float
    relative_error: float  # max|Δ| / max|logit|
    tolerance: float


class Engine:
    """Sessions that keep the contract of `service.artifact`. Made by `Engine.load`.

    Attributes:
        path: The model file.
        metadata: What the file says of itself.
        sha256: Of the file's bytes.
        requested: The provider asked for.
        active: The kind of provider it runs on.
        is_fallback: Whether that is the CPU because the GPU that is there could not be used.
        threads: Of the wide session; as many may call the narrow one at once.
        buckets: Batch sizes to be warmed.
    """

    def __init__(
        self, opened: OpenSession, *, path: Path, metadata: ModelMetadata, sha256: str, options: EngineOptions
    ) -> None:
        self.path = path
        self.metadata = metadata
        self.sha256 = sha256
        self.requested = options.provider
        self.active = opened.kind
        self.is_fallback = opened.is_fallback
        self.threads = opened.threads
        self.buckets = options.buckets
        self._session = self._narrow = opened.runtime
        self._bindings = None if opened.kind == "cpu" else self._bind()

    def __repr__(self) -> str:
        return f"<Engine {self.path} on {self.active}, {self.threads} thread(s)>"

    @classmethod
    def load(cls, path: Path, options: EngineOptions = _DEFAULTS) -> Engine:
        """A session from a model file, on the provider asked for.

        Raises:
            InvalidFile: Unreadable, truncated, or not what its checksum promises.
            LoadFailed: The runtime cannot build a session from it.
            ContractMismatch: No metadata, or at odds with the graph or the file's name.
            ProviderUnavailable: ``cuda`` or ``tensorrt`` was asked for and is not to be had.
        """
        before = identity(path)
        sha256 = verified_digest(path)
        opened = open_session(path, options, 1)
        metadata = parse_metadata(opened.runtime.get_modelmeta().custom_metadata_map, path)
        check_contract(opened.runtime, metadata, path)
        engine = cls(opened, path=path, metadata=metadata, sha256=sha256, options=options)
        if engine.active == "cpu":
            engine._widen(options)
        if identity(path) != before:  # else the checksum would be that of another file
            raise InvalidFile(f"{path}: was changed while it was being loaded")
        return engine

    @property
    def has_lanes(self) -> bool:
        """Whether `run_in_lane` is another way than `run`."""
        return self.threads > 1

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(H, W, C) of one instance."""
        contract = self.metadata.input
        return contract.height, contract.width, contract.channels

    def run(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """Logits and probabilities, float32 [N, K] each, of a batch, on all cores.

        Args:
            pixels: uint8 [N, H, W, C], contiguous, N ≤ ``max_batch_size``; not modified.

        Raises:
            InferenceFailed: The runtime failed.
            EngineLost: It will from now on.
        """
        return self._run(self._session, pixels)

    def run_in_lane(self, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        """As `run`, on the calling thread alone; for several threads at once."""
        return self._run(self._narrow, pixels)

    def warm(self, batch_size: int) -> float:
        """Run a batch of this size on all cores until it is as fast as it will be; its seconds.

        Raises:
            LoadFailed: The runtime failed.
        """
        return self._warmed(self._session, batch_size)

    def warm_lane(self, batch_size: int) -> float:
        """As `warm`, on the calling thread alone."""
        return self._warmed(self._narrow, batch_size)

    def self_test(self) -> SelfTestResult:
        """Replay the file's own images through the decode path and every session; the worst result.

        Raises:
            SelfTestFailed: Other logits than the file's beyond its tolerance for this kind of provider,
                another top-1, or probabilities that do not belong to the logits.
        """
        instances = self.metadata.selftest.instances
        tolerance = self.metadata.selftest.tolerance.get(self.active)
        if tolerance is None:
            raise SelfTestFailed(f"{self.path}: the self-test states no tolerance for {self.active}")
        expected = np.array([instance.logits for instance in instances], np.float64)
        runs = [self.run, self.run_in_lane] if self.has_lanes else [self.run]
        results = [self._tested(run, expected, tolerance) for run in runs]
        return max(results, key=lambda result: result.relative_error)

    def release(self) -> None:
        """Give back memory before the engine is dropped. Nobody may run it any more; not for the event loop.

        Raises:
            InferenceFailed: The runtime failed.
        """
        try:
            self._shrink()
        except Exception as error:  # onnxruntime's exceptions have no common ancestor but this
            raise InferenceFailed("the model failed while it was released") from error
        del self._session, self._narrow, self._bindings
        give_back_freed_memory()

    def _bind(self) -> Bindings:
        """On a GPU every new batch size costs a search for kernels, so only the warmed ones are run."""
        staging = page_locked((self.buckets[-1], *self.input_shape))
        try:
            return Bindings(self._session, self.active, staging, len(self.metadata.labels), self.buckets)
        except Exception as error:  # onnxruntime's exceptions have no common ancestor but this
            raise LoadFailed(f"{self.path}: no buffers on the device for it: {error}") from error

    def _run(
        self, session: onnxruntime.InferenceSession, pixels: NDArray[np.uint8]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        try:
            if self._bindings is not None:
                return self._bindings.run(pixels)
            logits, probabilities = session.run(OUTPUTS, {INPUT_NAME: pixels})
        except Exception as error:  # onnxruntime's exceptions have no common ancestor but this
            if needs_new_process(error):
                raise EngineLost(f"no batch can run in this process any more: {error}") from error
            raise InferenceFailed("the model failed on this batch") from error
        return logits, probabilities

    def _shrink(self) -> None:
        pixels = np.zeros((1, *self.input_shape), np.uint8)
        for session in (self._session, self._narrow) if self.has_lanes else (self._session,):
            shrink(session, self.active, {INPUT_NAME: pixels})

    def _widen(self, options: EngineOptions) -> None:
        """Open the wide session, where it pays."""
        cpus = options.cpus or available_cpus()
        threads = options.threads or (cpus if cpus > 1 and not self._is_light() else 1)
        if threads > 1:
            opened = open_session(self.path, replace(options, provider=Provider.CPU), threads)
            self._session, self.threads = opened.runtime, opened.threads

    def _is_light(self) -> bool:
        """Whether a lone instance is so fast that more threads would not pay."""
        pixels = np.zeros((1, *self.input_shape), np.uint8)
        return any(self._timed(self._narrow, pixels) < _LIGHT_S for _ in range(_TRIALS))

    def _tested(self, run: _Run, expected: NDArray[np.float64], tolerance: float) -> SelfTestResult:
        logits, probabilities = self._replay(run)
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
        return SelfTestResult(len(expected), error, relative, tolerance)

    def _replay(self, run: _Run) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
        rows = [self._replay_one(run, instance.image) for instance in self.metadata.selftest.instances]
        return (
            np.concatenate([logits for logits, _ in rows]).astype(np.float64),
            np.concatenate([probabilities for _, probabilities in rows]).astype(np.float64),
        )

    def _replay_one(self, run: _Run, image: bytes) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        try:
            return run(decode(image, self.metadata.input)[np.newaxis])
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

    def _warmed(self, session: onnxruntime.InferenceSession, batch_size: int) -> float:
        pixels = np.random.default_rng(0).integers(0, 256, (batch_size, *self.input_shape), np.uint8)
        first_s = self._timed(session, pixels)
        return first_s if first_s > _SLOW_S else min(first_s, self._timed(session, pixels))

    def _timed(self, session: onnxruntime.InferenceSession, pixels: NDArray[np.uint8]) -> float:
        """Seconds one batch takes, before anybody waits for it."""
        started = time.perf_counter()
        try:
            self._run(session, pixels)
        except InferenceFailed as error:
            raise LoadFailed(
                f"{self.path}: the warm-up with {len(pixels)} instance(s) failed: {error.__cause__}"
            ) from error
        return time.perf_counter() - started
