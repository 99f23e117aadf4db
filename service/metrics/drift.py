"""How far what is served has moved from what training saw.

::

    image decoded    ─▶ is one due? ─▶ some of its bytes, its size           (kept, at most ten a second)
    batch answered   ─▶ is one due? ─▶ best labels, their probabilities      (kept, at most ten a second)
    scrape           ─▶ counted into the reference's bins, old ones fading ─▶ PSI by feature

    PSI = Σ (p − q) · ln(p / q)        p: share of a bin now, q: in training

Below 0.1 nothing has changed, above 0.25 much has. Two samples of one distribution are apart by about
(bins − 1) · (1/n + 1/m) already, so nothing is said before `MIN_SAMPLES`. To every bin half an instance is
added, or an empty one would make the index infinite.

The request path pays a comparison, and ten times a second a copy of a kilobyte; what is kept is bounded, also
when nobody scrapes.

Source: Siddiqi, Credit Risk Scorecards, 2006, "population stability index"; Yurdakul, Statistical properties
of population stability index, 2018 (its size without drift).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from typing import Final, Literal, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.artifact import Histogram, ReferenceDistributions

Feature: TypeAlias = Literal["mean", "contrast", "size", "confidence", "label"]

# Samples that the shares of now are made of, about; the older ones fade. At ten a second, three minutes.
WINDOW: Final = 2000
MIN_SAMPLES: Final = 500
SAMPLE_INTERVAL_S: Final = 0.1
# What is kept between two scrapes; Prometheus comes every 5 to 60 s.
_MAX_KEPT: Final = 128
# Of one image, at least: enough for its mean within a thirtieth of its contrast.
_SAMPLED_BYTES: Final = 1024
# More labels than this share bins, or a thousand of them would need as many thousands of samples.
_LABEL_BINS: Final = 16


class Drift:
    """One model version's distance from its training.

    Moments are told by who calls, on any clock: it has read it already.

    Args:
        reference: What the model file says of training.

    Attributes:
        image_due: From this moment on `observe_image` is wanted for the next image.
        batch_due: Likewise `observe_predictions`, for the next batch.
    """

    def __init__(self, reference: ReferenceDistributions) -> None:
        self.image_due = self.batch_due = -math.inf
        self._images: deque[tuple[NDArray[np.uint8], float]] = deque(maxlen=_MAX_KEPT)
        self._predictions: deque[tuple[NDArray[np.intp], NDArray[np.float32]]] = deque(maxlen=_MAX_KEPT)
        self._label_bins = _label_bins(reference.labels)
        n = reference.instances
        self._mean = _HistogramWindow(reference.mean, n)
        self._contrast = _HistogramWindow(reference.contrast, n)
        self._size = None if reference.size is None else _HistogramWindow(reference.size, n)
        self._confidence = _HistogramWindow(reference.confidence, n)
        shares = np.bincount(self._label_bins, np.array(reference.labels)).astype(np.float64)
        self._label = _Window(shares, n)

    def observe_image(self, pixels: NDArray[np.uint8], size: float, now: float) -> None:
        """Keep a decoded image's sample.

        Args:
            pixels: uint8 [H, W, C], contiguous; not kept.
            size: sqrt(width · height) before the resize.
            now: Seconds.
        """
        self.image_due = now + SAMPLE_INTERVAL_S
        self._images.append((sampled(pixels), size))

    def observe_predictions(
        self, labels: NDArray[np.intp], confidences: NDArray[np.float32], now: float
    ) -> None:
        """Keep a batch's best labels [N] and their probabilities [N]."""
        self.batch_due = now + SAMPLE_INTERVAL_S
        self._predictions.append((labels, confidences))

    def indices(self) -> Iterator[tuple[Feature, float]]:
        """(feature, PSI) of each that the reference knows and that enough was seen of."""
        self._count()
        windows: tuple[tuple[Feature, _Window | None], ...] = (
            ("mean", self._mean),
            ("contrast", self._contrast),
            ("size", self._size),
            ("confidence", self._confidence),
            ("label", self._label),
        )
        for feature, window in windows:
            if window is not None and window.samples >= MIN_SAMPLES:
                yield feature, window.index()

    def _count(self) -> None:
        """Move what was kept into the windows."""
        if self._images:
            pixels = np.array([row for row, _ in self._images], np.float32)
            self._mean.add_values(pixels.mean(axis=1))
            self._contrast.add_values(pixels.std(axis=1))
            if self._size is not None:
                self._size.add_values(np.array([size for _, size in self._images]))
            self._images.clear()
        if self._predictions:
            labels, confidences = map(np.concatenate, zip(*self._predictions, strict=True))
            self._confidence.add_values(confidences)
            self._label.add(np.bincount(self._label_bins[labels], minlength=self._label.bins))
            self._predictions.clear()


class _Window:
    """Counts by bin of about the last `WINDOW` samples, beside the reference's shares."""

    def __init__(self, shares: NDArray[np.float64], instances: int) -> None:
        self._reference = _smoothed(shares * instances)
        self._counts = np.zeros(len(shares))

    @property
    def bins(self) -> int:
        """How many."""
        return len(self._counts)

    @property
    def samples(self) -> float:
        """How many, the faded ones in part."""
        return float(self._counts.sum())

    def add(self, counts: NDArray[np.integer]) -> None:
        """Count new samples by bin; all fade alike where they become too many."""
        self._counts += counts
        self._counts *= min(1.0, WINDOW / self.samples)

    def index(self) -> float:
        """PSI of the window against the reference."""
        return stability_index(_smoothed(self._counts), self._reference)


class _HistogramWindow(_Window):
    """A window over a histogram of the model file."""

    def __init__(self, reference: Histogram, instances: int) -> None:
        super().__init__(np.array(reference.shares), instances)
        self._edges = np.array(reference.edges)

    def add_values(self, values: NDArray[np.floating]) -> None:
        """Count values [N]; an edge belongs to the bin above it, as in the model file."""
        bins = np.searchsorted(self._edges, values, side="right")
        self.add(np.bincount(bins, minlength=self.bins))


def stability_index(p: NDArray[np.float64], q: NDArray[np.float64]) -> float:
    """Σ (p − q) · ln(p / q) of two sets of shares, none of them 0."""
    return float(((p - q) * np.log(p / q)).sum())


def sampled(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A thousand or a few more evenly spread bytes of uint8 [H, W, C], copied; all where there are fewer.

    The step has no divisor in common with a row's length, or the same columns and colours would be met again
    and again.
    """
    flat = pixels.reshape(-1)
    row = pixels.shape[1] * pixels.shape[2]
    step = max(1, len(flat) // _SAMPLED_BYTES)
    while math.gcd(step, row) > 1:
        step -= 1
    return flat[::step].copy()


def _smoothed(counts: NDArray[np.float64]) -> NDArray[np.float64]:
    """Counts as shares, with half an instance more in every bin."""
    shares: NDArray[np.float64] = (counts + 0.5) / (counts.sum() + 0.5 * len(counts))
    return shares


def _label_bins(shares: tuple[float, ...]) -> NDArray[np.intp]:
    """The bin of each label [K]; where they share bins, frequent and rare ones are dealt out evenly."""
    bins = np.empty(len(shares), np.intp)
    bins[np.argsort(shares, kind="stable")] = np.arange(len(shares)) % _LABEL_BINS
    return bins
