"""The metrics of several workers as those of one service.

::

    counters, histograms     added up; those of a worker that ended stay in the sum, or a counter would fall
    gauges of an amount      added up
    gauges of a state        the worst of them; of `…_info`, each one there is
    exemplars                the newest of each bucket
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from typing import Any, Final, TypeAlias

from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Exemplar

from service.metrics.families import Families
from service.metrics.text import Line, labels_text, render

# One worker's families as plain data, so that they can travel: by name, with samples and exemplars.
Snapshot: TypeAlias = dict[str, dict[str, Any]]

_WORST: Final[dict[str, Callable[[float, float], float]]] = {
    "foldserve_predicted_wait_seconds": max,
    "foldserve_queue_age_seconds": max,
    "foldserve_cpu_fallback": max,
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
            "exemplars": [
                [sample.name, sample.labels, *sample.exemplar]
                for sample in family.samples
                if sample.exemplar is not None
            ],
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
            into = whole.setdefault(name, {**family, "samples": [], "exemplars": []})
            into["samples"] += family["samples"]
            into["exemplars"] += family["exemplars"]
    for name, family in whole.items():
        family["samples"] = _combined(name, family["samples"])
        family["exemplars"] = _newest(family["exemplars"])
    return whole


def _combined(family: str, samples: list[list[Any]]) -> list[list[Any]]:
    rule = max if family.endswith("_info") else _WORST.get(family, float.__add__)
    combined: dict[tuple[object, ...], list[Any]] = {}
    for name, labels, value in samples:
        key = (name, *labels.items())  # every worker writes them in the same order
        if key in combined:
            combined[key][2] = rule(float(combined[key][2]), float(value))
        else:
            combined[key] = [name, labels, value]
    return list(combined.values())


def _newest(exemplars: list[list[Any]]) -> list[list[Any]]:
    """One a bucket. The last item of each is when it was seen."""
    exemplars = sorted(exemplars, key=lambda each: float(each[-1]))
    return list(
        {(name, *labels.items()): [name, labels, *rest] for name, labels, *rest in exemplars}.values()
    )


class SummedFamily:
    """A family of a snapshot; see `service.metrics.text.Exposed`."""

    def __init__(self, name: str, family: dict[str, Any]) -> None:
        self.name = name
        self.documentation: str = family["documentation"]
        self.kind: str = family["type"]
        self._family = family

    def lines(self) -> Iterator[Line]:
        """Its samples."""
        exemplars = {
            (sample, labels_text(labels)): Exemplar(*exemplar)
            for sample, labels, *exemplar in self._family["exemplars"]
        }
        for sample, labels, value in self._family["samples"]:
            text = labels_text(labels)
            yield sample, text, value, exemplars.get((sample, text)) if exemplars else None


def missing_workers(count: int) -> Snapshot:
    """What workers that cannot speak for themselves yet add to the sum."""
    workers = Families().workers
    workers.labels("unready").set(count)
    return _plain([workers.collect()])


def render_snapshot(of: Snapshot, *, openmetrics: bool = False) -> tuple[bytes, str]:
    """The exposition of a snapshot and its content type."""
    families = (SummedFamily(name, family) for name, family in of.items())
    return render(families, openmetrics=openmetrics)
