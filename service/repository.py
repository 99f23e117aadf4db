"""The model repository: which version of which model serves.

::

    models/<name>/<version>/model[.precision].onnx
        │  find      names and versions by their patterns, nothing that leads outside
        │  build     session ─▶ warm-up ─▶ self-test                    ModelRejected: logged, counted,
        │                                                               and the next lower version is tried
        ▼  serve     a batcher of its own
    resolve(model, version) ─▶ ServedModel

A version serves only after it has answered its own self-test on this machine. A model none of whose
versions does so keeps the process from starting.
"""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from service.artifact import MODEL_NAME_PATTERN, VERSION_PATTERN, ModelMetadata, Precision, Task
from service.batcher import Batcher, CostModel
from service.engine import Engine, EngineOptions, SelfTestResult, has_int8_instructions
from service.errors import (
    InvalidConfiguration,
    InvalidFile,
    ModelNotFound,
    ModelRejected,
    NotReady,
    ReloadResult,
)
from service.metrics import Metrics, ModelMetrics

logger = logging.getLogger(__name__)

_NAME = re.compile(MODEL_NAME_PATTERN)
_VERSION = re.compile(VERSION_PATTERN)
# The name `make model` gives; what a request without `model=` means where there are several.
_DEFAULT_NAME = "digits"


@dataclass(frozen=True, slots=True)
class RepositoryOptions:
    """What to serve, and how.

    Attributes:
        root: The folder with the models.
        models: Names; None: every model in the folder.
        default_model: Answers when a request names none; None: the only model, else ``digits``.
        precision: The file to load of each version; None: what the hardware is made for, where the
            version has it.
        engine: How sessions are built.
        max_queue_size: Most instances admitted and unanswered, for each model.
        max_queue_delay_s: How long an idle engine waits for company.
        inference_timeout_s: A batch that takes longer is a hang.
    """

    root: Path = Path("models")
    models: Sequence[str] | None = None
    default_model: str | None = None
    precision: Precision | None = Precision.FP32
    engine: EngineOptions = field(default_factory=EngineOptions)
    max_queue_size: int = 1024
    max_queue_delay_s: float = 0.0
    inference_timeout_s: float = 30.0


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A version that was loaded, warmed and self-tested, and does not serve yet."""

    name: str
    version: str
    engine: Engine
    self_test: SelfTestResult
    cost: CostModel
    max_batch_size: int
    build_s: float


@dataclass(frozen=True, slots=True)
class ServedModel:
    """A version that answers requests."""

    name: str
    version: str
    engine: Engine
    batcher: Batcher
    metrics: ModelMetrics
    self_test: SelfTestResult

    @property
    def metadata(self) -> ModelMetadata:
        """What its file says of itself."""
        return self.engine.metadata

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names, in the order of its outputs."""
        return self.engine.metadata.labels


@dataclass(frozen=True, slots=True)
class ModelStatus:
    """One model's place in the repository index.

    Attributes:
        state: ``unavailable`` once its engine died or hung.
        version: The one that serves.
        rejected: Version → why it does not serve.
    """

    name: str
    state: Literal["ready", "unavailable"]
    version: str
    rejected: Mapping[str, str]


class Repository:
    """The models of one process. `start` on the event loop before anything else."""

    def __init__(self, options: RepositoryOptions, metrics: Metrics) -> None:
        self.options = options
        self._metrics = metrics
        self._served: dict[str, ServedModel] = {}
        self._rejected: dict[str, dict[str, str]] = {}

    def __repr__(self) -> str:
        served = ", ".join(f"{model.name}/{model.version}" for model in self._served.values())
        return f"<Repository {self.options.root}: {served or 'nothing served'}>"

    async def start(self) -> None:
        """Load the highest good version of every model wanted, and serve them.

        Raises:
            InvalidConfiguration: No such folder or model, or none at all.
            ModelRejected: No version of a wanted model may serve; this is the highest one's reason.
            ProviderUnavailable: The execution provider that was demanded is not there.
        """
        wanted = self._wanted()
        default = self.options.default_model
        if default is not None and default not in wanted:
            raise InvalidConfiguration(f"default_model '{default}' is not among the models to serve")
        for built in [await self._build_best(name) for name in wanted]:
            self._serve(built)

    async def close(self, grace_s: float) -> None:
        """Drain every model's batcher within the grace."""
        await asyncio.gather(*(model.batcher.close(grace_s) for model in self._served.values()))

    @property
    def served(self) -> tuple[ServedModel, ...]:
        """Every model that answers, by name."""
        return tuple(self._served[name] for name in sorted(self._served))

    @property
    def is_ready(self) -> bool:
        """Whether every model takes requests."""
        return bool(self._served) and all(model.batcher.is_ready for model in self._served.values())

    @property
    def is_alive(self) -> bool:
        """False once an engine died or hung: the process must be restarted."""
        return all(model.batcher.is_alive for model in self._served.values())

    def index(self) -> tuple[ModelStatus, ...]:
        """What the repository serves and what it refused, by name."""
        return tuple(
            ModelStatus(
                model.name,
                "ready" if model.batcher.is_ready else "unavailable",
                model.version,
                dict(self._rejected.get(model.name, {})),
            )
            for model in self.served
        )

    def resolve(self, model: str | None = None, version: str | None = None) -> ServedModel:
        """The model that answers a request.

        Args:
            model: Its name; None: the default.
            version: Must be the one that serves; None: whichever serves.

        Raises:
            ModelNotFound: No such model or version is served, or none was named and there is no default.
            NotReady: Nothing is served yet.
        """
        if not self._served:
            raise NotReady("no model is loaded yet")
        served = self._served.get(model) if model is not None else self._default()
        if served is None:
            raise ModelNotFound(f"no model '{model}'; there is: {', '.join(sorted(self._served))}")
        if version is not None and version != served.version:
            raise ModelNotFound(f"model '{served.name}' serves version {served.version}, not '{version}'")
        return served

    def _default(self) -> ServedModel:
        name = self.options.default_model
        if name is None:
            name = next(iter(self._served)) if len(self._served) == 1 else _DEFAULT_NAME
        if name not in self._served:
            raise ModelNotFound(f"name one of the models with `model=`: {', '.join(sorted(self._served))}")
        return self._served[name]

    def _wanted(self) -> list[str]:
        """The models to serve."""
        root = self.options.root
        found = self._found()
        if self.options.models is None:
            if not found:
                raise InvalidConfiguration(f"no models in '{root}'; `make model` makes one")
            return found
        for name in self.options.models:
            if name not in found:
                there = ", ".join(found) or "none"
                raise InvalidConfiguration(f"no model '{name}' in '{root}'; there is: {there}")
        return list(self.options.models)

    def _found(self) -> list[str]:
        root = self.options.root
        try:
            if root.is_dir():
                return model_names(root)
        except OSError as error:
            raise InvalidConfiguration(f"model repository '{root}' cannot be read: {error}") from error
        raise InvalidConfiguration(f"no model repository at '{root}'; `make model` makes one")

    async def _build_best(self, name: str) -> BuiltModel:
        """The highest version that may serve."""
        folder = self.options.root / name
        first_fault: ModelRejected | None = None
        for version in versions(folder, self.options.root):
            started = time.perf_counter()
            try:
                built = await asyncio.to_thread(build, name, version, self.options)
            except ModelRejected as fault:
                self._reject(name, version, fault, time.perf_counter() - started)
                first_fault = first_fault or fault
            else:
                self._metrics.load_finished(name, ReloadResult.SUCCESS, built.build_s)
                return built
        raise first_fault or InvalidConfiguration(f"no version left in '{folder}'")

    def _reject(self, name: str, version: str, fault: ModelRejected, seconds: float) -> None:
        logger.error("model %s version %s does not serve: %s", name, version, fault)
        self._rejected.setdefault(name, {})[version] = str(fault)
        self._metrics.load_finished(name, fault.result, seconds)

    def _serve(self, built: BuiltModel) -> None:
        """Put a built version in front of the clients."""
        engine, metadata = built.engine, built.engine.metadata
        threshold = metadata.threshold if metadata.task is Task.MULTILABEL else None
        metrics = self._metrics.for_model(built.name, built.version, metadata.labels, threshold)
        batcher = Batcher(
            engine.run,
            input_shape=engine.input_shape,
            max_batch_size=built.max_batch_size,
            max_queue_size=self.options.max_queue_size,
            max_queue_delay_s=self.options.max_queue_delay_s,
            inference_timeout_s=self.options.inference_timeout_s,
            name=f"{built.name}/{built.version}",
            cost=built.cost,
            observer=metrics,
        )
        self._served[built.name] = ServedModel(
            built.name, built.version, engine, batcher, metrics, built.self_test
        )
        self._metrics.watch_queue(built.name, batcher)
        self._metrics.model_loaded(
            built.name,
            built.version,
            precision=metadata.precision.value,
            sha256=engine.sha256,
            requested_provider=engine.requested.value,
            active_provider=engine.active,
            selftest_max_abs_error=built.self_test.max_abs_error,
        )
        logger.info(
            "model %s version %s serves on %s (%s, loaded in %.2f s)",
            *(built.name, built.version, engine.active, metadata.precision.value, built.build_s),
        )


def build(name: str, version: str, options: RepositoryOptions) -> BuiltModel:
    """Load, warm and self-test one version. Slow: not for the event loop's thread.

    Raises:
        ModelRejected: It must not serve.
        ProviderUnavailable: The execution provider that was demanded is not there.
    """
    started = time.perf_counter()
    folder = options.root / name / version
    try:
        path = model_file(folder, options)
    except OSError as error:
        raise InvalidFile(f"{folder}: cannot be read: {error}") from error
    engine = Engine.load(path, options.engine)
    cost, max_batch_size = warm_up(engine)
    self_test = engine.self_test()
    seconds = time.perf_counter() - started
    return BuiltModel(name, version, engine, self_test, cost, max_batch_size, seconds)


def warm_up(engine: Engine) -> tuple[CostModel, int]:
    """Run every batch bucket that will be used; what batches cost, and the largest that was warmed.

    On a CPU the buckets end at twice the size that is worth its members' time (`CostModel`): larger batches
    would never be formed, but warming them takes seconds, and their activations stay allocated.

    Raises:
        LoadFailed: The runtime failed.
    """
    cost, largest = CostModel(), 1
    for size in engine.buckets:
        cost.learn(size, engine.warm(size))
        largest = size
        if engine.active == "cpu" and size >= 2 * cost.worthwhile_size(engine.buckets[-1]):
            break
    return cost, largest


def model_file(folder: Path, options: RepositoryOptions) -> Path:
    """The file of the wanted precision in a version's folder.

    Raises:
        InvalidFile: There is none, or it is a link that leads out of the repository.
    """
    precision = options.precision or _native_precision(options)
    path = folder / precision.file_name
    if options.precision is None and not path.is_file():
        path = folder / Precision.FP32.file_name
    if not path.is_file():
        raise InvalidFile(f"{folder}: no {path.name} in it")
    if not _is_inside(path, options.root):
        raise InvalidFile(f"{path}: leads out of the repository '{options.root}'")
    return path


def model_names(root: Path) -> list[str]:
    """The models in a repository, by name: folders that hold a version."""
    names = filter(_NAME.fullmatch, _folders(root, root))
    return sorted(name for name in names if versions(root / name, root))


def versions(folder: Path, root: Path) -> list[str]:
    """A model's versions, highest first."""
    return sorted(filter(_VERSION.fullmatch, _folders(folder, root)), key=int, reverse=True)


def _folders(parent: Path, root: Path) -> Iterator[str]:
    """The folders in a folder, without links that lead out of the repository."""
    return (entry.name for entry in parent.iterdir() if entry.is_dir() and _is_inside(entry, root))


def _is_inside(path: Path, root: Path) -> bool:
    return path.resolve().is_relative_to(root.resolve())


def _native_precision(options: RepositoryOptions) -> Precision:
    """The precision that the hardware is made for: the same on every replica, so no stopwatch."""
    if options.engine.provider.kind != "cpu":
        return Precision.FP16
    return Precision.INT8 if has_int8_instructions() else Precision.FP32
