"""Counters, gauges and histograms whose hot path is one addition, written from one thread only.

prometheus-client's own take a lock and about 1–2 µs an observation; a request makes a dozen. These
are collected into its metric families where they travel, and written as text where they do not.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from bisect import bisect_left, bisect_right
from collections.abc import Iterable, Iterator, Sequence
from typing import ClassVar, Generic, TypeVar

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.samples import Exemplar

from service.metrics.text import Line, labels_text


class Counter:
    """One series that only grows."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def inc(self, amount: float = 1.0) -> None:
        """Add an amount ≥ 0."""
        self.value += amount


class Gauge:
    """One series that goes up and down."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0

    def set(self, value: float) -> None:
        """Replace the value."""
        self.value = value


class Histogram:
    """One series of observations, counted by bucket. An edge belongs to the bucket below it (``le``)."""

    __slots__ = ("counts", "edges", "exemplars", "sum")

    def __init__(self, edges: Sequence[float]) -> None:
        self.edges = edges
        self.counts = [0] * (len(edges) + 1)
        self.sum = 0.0
        # By position of the bucket: the last value whose trace is known.
        self.exemplars: dict[int, Exemplar] = {}

    def observe(self, value: float) -> None:
        """Count one value."""
        self.counts[bisect_left(self.edges, value)] += 1
        self.sum += value

    def observe_all(self, values: Iterable[float]) -> None:
        """Count every value. Of many at once each costs a third of what it costs alone: sorted, then cut."""
        ordered = sorted(values)
        below = 0
        for position, edge in enumerate(self.edges):
            up_to = bisect_right(ordered, edge, below)
            self.counts[position] += up_to - below
            below = up_to
        self.counts[-1] += len(ordered) - below
        self.sum += sum(ordered)

    def observe_times(self, value: float, times: int) -> None:
        """Count one value so many times."""
        self.counts[bisect_left(self.edges, value)] += times
        self.sum += value * times

    def exemplify(self, value: float, trace_id: str) -> None:
        """Show this trace as an example of the values in this one's bucket."""
        bucket = bisect_left(self.edges, value)
        self.exemplars[bucket] = Exemplar({"trace_id": trace_id}, value, time.time())

    def cumulative(self) -> list[tuple[str, float]]:
        """(``le``, instances at or below it) for each edge and +Inf."""
        total = 0
        buckets: list[tuple[str, float]] = []
        for edge, count in zip((*map(repr, self.edges), "+Inf"), self.counts, strict=True):
            total += count
            buckets.append((edge, total))
        return buckets

    def exposed(self) -> list[tuple[str, float] | tuple[str, float, Exemplar]]:
        """`cumulative`, with each bucket's example where it has one."""
        return [
            (*bucket, self.exemplars[position]) if position in self.exemplars else bucket
            for position, bucket in enumerate(self.cumulative())
        ]


S = TypeVar("S", Counter, Gauge, Histogram)


class _Family(ABC, Generic[S]):
    """One metric name and its series by label values."""

    kind: ClassVar[str]

    def __init__(self, name: str, documentation: str, labels: Sequence[str] = ()) -> None:
        self.name = name
        self.documentation = documentation
        self.label_names = tuple(labels)
        self._series: dict[tuple[str, ...], S] = {}
        # Label values → the labels of each of the series' samples, as text.
        self._texts: dict[tuple[str, ...], tuple[str, ...]] = {}

    @property
    def exposed_name(self) -> str:
        """The name as Prometheus sees it."""
        return self.name

    @abstractmethod
    def _make(self) -> S:
        """A new series, at zero."""

    def labels(self, *values: str) -> S:
        """The series with these label values, in the order of the names; made when it is new."""
        try:
            return self._series[values]
        except KeyError:
            if len(values) != len(self.label_names):
                raise ValueError(f"{self.name} has the labels {self.label_names}, got {values}") from None
            return self._series.setdefault(values, self._make())

    def remove(self, **match: str) -> None:
        """Forget every series with these label values (a model that was unloaded)."""
        wanted = {self.label_names.index(name): value for name, value in match.items()}
        for values in list(self._series):
            if all(values[position] == value for position, value in wanted.items()):
                del self._series[values]
                self._texts.pop(values, None)

    def items(self) -> Iterator[tuple[tuple[str, ...], S]]:
        """Every series with its label values."""
        return iter(self._series.items())

    def lines(self) -> Iterator[Line]:
        """Every sample, as `service.metrics.text` writes it."""
        for values, series in self._series.items():
            texts = self._texts.get(values)
            if texts is None:
                texts = self._texts[values] = self._label_texts(values)
            yield from self._samples(series, texts)

    def _label_texts(self, values: tuple[str, ...]) -> tuple[str, ...]:
        return (labels_text(dict(zip(self.label_names, values, strict=True))),)

    @abstractmethod
    def _samples(self, series: S, texts: tuple[str, ...]) -> Iterable[Line]:
        """A series' samples, with the labels of each."""


class CounterFamily(_Family[Counter]):
    """A ``_total``."""

    kind = "counter"

    @property
    def exposed_name(self) -> str:
        """The name as Prometheus sees it."""
        return f"{self.name}_total"

    def _make(self) -> Counter:
        return Counter()

    def _samples(self, series: Counter, texts: tuple[str, ...]) -> Iterable[Line]:
        return ((self.exposed_name, texts[0], series.value, None),)

    def collect(self) -> Metric:
        """For the exposition."""
        family = CounterMetricFamily(self.name, self.documentation, labels=self.label_names)
        for values, series in self.items():
            family.add_metric(values, series.value)
        return family


class GaugeFamily(_Family[Gauge]):
    """A value of the moment."""

    kind = "gauge"

    def _make(self) -> Gauge:
        return Gauge()

    def _samples(self, series: Gauge, texts: tuple[str, ...]) -> Iterable[Line]:
        return ((self.name, texts[0], series.value, None),)

    def collect(self) -> Metric:
        """For the exposition."""
        family = GaugeMetricFamily(self.name, self.documentation, labels=self.label_names)
        for values, series in self.items():
            family.add_metric(values, series.value)
        return family


class HistogramFamily(_Family[Histogram]):
    """Observations by bucket."""

    kind = "histogram"

    def __init__(
        self, name: str, documentation: str, labels: Sequence[str] = (), *, buckets: Sequence[float]
    ) -> None:
        super().__init__(name, documentation, labels)
        self.buckets = tuple(buckets)

    def _make(self) -> Histogram:
        return Histogram(self.buckets)

    def _label_texts(self, values: tuple[str, ...]) -> tuple[str, ...]:
        labels = dict(zip(self.label_names, values, strict=True))
        edges = (*map(repr, self.buckets), "+Inf")
        return (*(labels_text({**labels, "le": edge}) for edge in edges), labels_text(labels))

    def _samples(self, series: Histogram, texts: tuple[str, ...]) -> Iterable[Line]:
        bucket, total = f"{self.name}_bucket", 0
        for position, count in enumerate(series.counts):
            total += count
            yield bucket, texts[position], total, series.exemplars.get(position)
        yield f"{self.name}_count", texts[-1], total, None
        yield f"{self.name}_sum", texts[-1], series.sum, None

    def collect(self) -> Metric:
        """For the exposition."""
        family = HistogramMetricFamily(self.name, self.documentation, labels=self.label_names)
        for values, series in self.items():
            family.add_metric(values, series.exposed(), series.sum)
        return family
