"""The metrics of several workers as those of one service.

::

    counters, histograms     added up; those of a worker that ended stay in the sum, or a counter would fall
    gauges of an amount      added up
    gauges of a state        the worst of them; of `…_info`, each one there is
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from service.metrics.families import Families
from service.metrics.text import Line, labels_text, render

# One worker's families as plain data, so that they can travel: name → documentation, type, samples.
Snapshot: TypeAlias = dict[str, dict[str, Any]]

_WORST: Final[dict[str, Callable[[float, float], float]]] = {
    "foldserve_predicted_wait_seconds": max,
    "foldserve_queue_age_seconds": max,
    "foldserve_selftest_max_abs_error": max,
    "foldserve_drift_psi": max,
    "foldserve_ready": min,
}
_LASTING_TYPES: Final = frozenset({"counter", "histogram"})


def snapshot(collector: Collector) -> Snapshot:
    """What a collector says now."""
    return _plain(collector.collect())


def _plain(families: Iterable[Metric]) -> Snapshot:
    return {
        family.name: {
            "documentation": family.documentation,
            "type": family.type,
            "samples": [[sample.name, sample.labels, sample.value] for sample in family.samples],
        }
        for family in families
    }


def lasting(of: Snapshot) -> Snapshot:
    """What still counts when the worker has ended."""
    return {name: family for name, family in of.items() if family["type"] in _LASTING_TYPES}


def total(snapshots: Iterable[Snapshot]) -> Snapshot:
    """All of them as one."""
    whole: Snapshot = {}
    for each in snapshots:
        for name, family in each.items():
            into = whole.setdefault(name, {**family, "samples": []})
            into["samples"] = _combined(name, [*into["samples"], *family["samples"]])
    return whole


def _combined(family: str, samples: list[list[Any]]) -> list[list[Any]]:
    rule = max if family.endswith("_info") else _WORST.get(family, float.__add__)
    combined: dict[tuple[str, tuple[tuple[str, str], ...]], list[Any]] = {}
    for name, labels, value in samples:
        key = (name, tuple(sorted(labels.items())))
        if key in combined:
            combined[key][2] = rule(float(combined[key][2]), float(value))
        else:
            combined[key] = [name, labels, value]
    return list(combined.values())


class SummedFamily:
    """A family of a snapshot; see `service.metrics.text.Exposed`."""

    def __init__(self, name: str, family: dict[str, Any]) -> None:
        self.name = name
        self.documentation: str = family["documentation"]
        self.kind: str = family["type"]
        self._family = family

    def lines(self) -> Iterator[Line]:
        """Its samples."""
        for sample, labels, value in self._family["samples"]:
            yield sample, labels_text(labels), value, None


def missing_workers(count: int) -> Snapshot:
    """What workers that cannot speak for themselves yet add to the sum."""
    workers = Families().workers
    workers.labels("unready").set(count)
    return _plain([workers.collect()])


def render_snapshot(of: Snapshot, *, openmetrics: bool = False) -> tuple[bytes, str]:
    """The exposition of a snapshot and its content type."""
    families = (SummedFamily(name, family) for name, family in of.items())
    return render(families, openmetrics=openmetrics)
