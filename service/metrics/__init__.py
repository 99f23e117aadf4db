"""What an operator can see.

::

    families     names, labels and buckets: the one place where they stand
    recording    what the other rooms call; read and rendered when a scrape comes
    model        what one model version did: noted at once, counted many at a time
    drift        what is served against what training saw
    gpu          memory and utilisation, where a model runs on one
    series       counters and histograms whose hot path is one addition
    summing      the metrics of several workers as one
    shadowing    what they say of a shadow
    text         both formats that a scraper may ask for

`Metrics` is one application's families, in a registry of its own. All of it is written and read on the event
loop's thread, so a count is a plain addition without a lock.
"""

from service.metrics.families import (
    BATCH_SIZE_BUCKETS,
    CONFIDENCE_BUCKETS,
    DURATION_BUCKETS_S,
    MAX_LABELS,
    OTHER_LABEL,
    Stage,
    metrics_reference,
)
from service.metrics.model import ModelMetrics
from service.metrics.recording import Metrics, QueueStatus, ShadowMetrics
from service.metrics.shadowing import ShadowFigures, shadow_figures
from service.metrics.summing import (
    Snapshot,
    lasting,
    missing_workers,
    render_snapshot,
    snapshot,
    total,
)
from service.metrics.triton import triton_names

__all__ = [
    "BATCH_SIZE_BUCKETS",
    "CONFIDENCE_BUCKETS",
    "DURATION_BUCKETS_S",
    "MAX_LABELS",
    "OTHER_LABEL",
    "Metrics",
    "ModelMetrics",
    "QueueStatus",
    "ShadowFigures",
    "ShadowMetrics",
    "Snapshot",
    "Stage",
    "lasting",
    "metrics_reference",
    "missing_workers",
    "render_snapshot",
    "shadow_figures",
    "snapshot",
    "total",
    "triton_names",
]
