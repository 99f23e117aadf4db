"""A loaded version: what answers requests, until it is retired."""

from __future__ import annotations

from dataclasses import dataclass

from service.artifact import ModelMetadata, Task
from service.batcher import Batcher
from service.engine import Engine, SelfTestResult
from service.metrics import Metrics, ModelMetrics
from service.repository.catalogue import Fingerprint
from service.repository.loading import BuiltModel
from service.repository.options import RepositoryOptions


@dataclass(frozen=True, slots=True, eq=False)
class ServedModel:
    """A version that answers requests.

    Attributes:
        fingerprint: Of the files it was loaded from.
    """

    name: str
    version: str
    engine: Engine
    batcher: Batcher
    metrics: ModelMetrics
    self_test: SelfTestResult
    fingerprint: Fingerprint = ()

    @property
    def metadata(self) -> ModelMetadata:
        """What its file says of itself."""
        return self.engine.metadata

    @property
    def labels(self) -> tuple[str, ...]:
        """Label names, in the order of its outputs."""
        return self.engine.metadata.labels


def serve(
    built: BuiltModel, fingerprint: Fingerprint, options: RepositoryOptions, metrics: Metrics
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
        selftest_max_abs_error=built.self_test.max_abs_error,
    )
    return ServedModel(built.name, built.version, engine, batcher, own_metrics, built.self_test, fingerprint)
