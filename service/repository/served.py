"""A loaded version: what answers requests, until it is retired."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Protocol, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.artifact import ModelMetadata, Task
from service.batcher import Batcher, Lanes, Row
from service.engine import Engine, SelfTestResult
from service.errors import RequestError
from service.metrics import Metrics, ModelMetrics
from service.repository.catalogue import Fingerprint
from service.repository.loading import BuiltModel
from service.repository.options import RepositoryOptions

Pixels: TypeAlias = NDArray[np.uint8]
Encoded: TypeAlias = bytes | memoryview
# What a request brought, and what a version said to it; an error where it said nothing.
Instance: TypeAlias = Encoded | Pixels | RequestError
Outcome: TypeAlias = Row | RequestError


class Audience(Protocol):
    """Who is told of every answer; `service.repository.shadow.Shadow` is one."""

    def offer(self, instances: Sequence[Instance], outcomes: Sequence[Outcome]) -> None:
        """One request was answered."""


class Tap:
    """Where a live version's answers can be heard.

    Attributes:
        audience: None: nobody listens.
    """

    __slots__ = ("audience",)

    def __init__(self) -> None:
        self.audience: Audience | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """A version that answers requests.

    Attributes:
        fingerprint: Of the files it was loaded from.
        is_background: Whether it was built to take no more than one core.
        tap: Where its answers can be heard.
    """

    name: str
    version: str
    engine: Engine
    batcher: Batcher
    metrics: ModelMetrics
    self_test: SelfTestResult
    fingerprint: Fingerprint = ()
    is_background: bool = False
    tap: Tap = field(default_factory=Tap)

    @property
    def metadata(self) -> ModelMetadata:
        """What its file says of itself."""
        return self.engine.metadata

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names, in the order of its outputs."""
        return self.engine.metadata.labels


def serve(
    built: BuiltModel,
    fingerprint: Fingerprint,
    options: RepositoryOptions,
    metrics: Metrics,
    *,
    is_background: bool = False,
) -> ServedModel:
    """A built version with a batcher of its own. On the event loop."""
    engine, metadata = built.engine, built.engine.metadata
    threshold = metadata.threshold if metadata.task is Task.MULTILABEL else None
    own_metrics = metrics.for_model(built.name, built.version, metadata.labels, threshold, metadata.reference)
    batcher = Batcher(
        engine.run,
        input_shape=engine.input_shape,
        max_batch_size=built.max_batch_size,
        max_queue_size=options.max_queue_size,
        max_queue_delay_s=options.max_queue_delay_s,
        inference_timeout_s=options.inference_timeout_s,
        is_watched=options.is_watched,
        lanes=Lanes(engine.threads, engine.run_in_lane) if engine.has_lanes else None,
        name=f"{built.name}/{built.version}",
        cost=built.cost,
        observer=own_metrics,
    )
    metrics.model_loaded(
        built.name,
        built.version,
        precision=metadata.precision.value,
        sha256=engine.sha256,
        requested_provider=engine.requested.value,
        active_provider=engine.active,
        is_fallback=engine.is_fallback,
        selftest_max_abs_error=built.self_test.max_abs_error,
    )
    return ServedModel(
        built.name,
        built.version,
        engine,
        batcher,
        own_metrics,
        built.self_test,
        fingerprint,
        is_background,
    )
