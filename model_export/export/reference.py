"""What training saw, as histograms: the service compares what it meets with them (drift)."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from service.artifact import Histogram, ReferenceDistributions

# Sixteen bins: fine enough to see a shift of a tenth of the range, few enough to fill with 1,000 pictures.
_PIXEL_EDGES = tuple(float(edge) for edge in np.linspace(0, 255, 17)[1:-1])
_SIZE_EDGES = tuple(float(2**power) for power in range(4, 14))  # 16 … 8,192 pixels
_CONFIDENCE_EDGES = tuple(float(edge) for edge in np.linspace(0, 1, 21)[1:-1])


def reference_distributions(
    images: NDArray[np.uint8], probabilities: NDArray[np.floating], sizes: NDArray[np.floating] | None
) -> ReferenceDistributions:
    """Distributions of the decoded pictures and of what the network says about them.

    Args:
        images: uint8 [N, H, W, C].
        probabilities: float [N, K] of the same pictures.
        sizes: [N], sqrt(width · height) before the resize; None where it was never known.
    """
    pixels = images.reshape(len(images), -1).astype(np.float32)
    shares = np.bincount(probabilities.argmax(axis=1), minlength=probabilities.shape[1]) / len(images)
    return ReferenceDistributions(
        instances=len(images),
        mean=histogram(pixels.mean(axis=1), _PIXEL_EDGES),
        contrast=histogram(pixels.std(axis=1), _PIXEL_EDGES),
        size=None if sizes is None else histogram(sizes, _SIZE_EDGES),
        confidence=histogram(probabilities.max(axis=1), _CONFIDENCE_EDGES),
        labels=tuple(float(share) for share in shares),
    )


def histogram(values: NDArray[np.floating], edges: tuple[float, ...]) -> Histogram:
    """Shares of ``values`` [N] between ``edges``, the two open ends included; they sum to 1."""
    counts = np.bincount(np.searchsorted(edges, values, side="right"), minlength=len(edges) + 1)
    return Histogram(edges=edges, shares=tuple(float(count) / len(values) for count in counts))
