"""Snapshots and metrics as prometheus-client sees and writes them: the measure of our own text."""

from __future__ import annotations

from collections.abc import Iterator

from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.metrics_core import Metric
from prometheus_client.openmetrics import exposition as openmetrics_exposition
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from service.metrics import Snapshot
from service.metrics.text import labels_text


class Summed(Collector):
    """A snapshot as a collector."""

    def __init__(self, of: Snapshot) -> None:
        self._snapshot = of

    def collect(self) -> Iterator[Metric]:
        """Every family, for a registry."""
        for name, family in self._snapshot.items():
            metric = Metric(name, family["documentation"], family["type"])
            exemplars = {
                (sample, labels_text(labels)): Exemplar(*exemplar)
                for sample, labels, *exemplar in family["exemplars"]
            }
            for sample, labels, value in family["samples"]:
                exemplar = exemplars.get((sample, labels_text(labels)))
                metric.add_sample(sample, labels, value, exemplar=exemplar)
            yield metric


def registry_of(of: Snapshot) -> CollectorRegistry:
    """A registry that says what the snapshot says."""
    registry = CollectorRegistry()
    registry.register(Summed(of))
    return registry


def as_the_library_writes(registry: CollectorRegistry, *, openmetrics: bool) -> bytes:
    """The exposition of a registry."""
    if not openmetrics:
        return generate_latest(registry)
    # The library does not annotate it.
    text: bytes = openmetrics_exposition.generate_latest(registry)  # type: ignore[no-untyped-call]
    return text
