"""What an operator can see: every metric family of the service, with its names and buckets in one place.

`Metrics` is one application's families, in a registry of its own. All of it is written and read on the event
loop's thread, so a count is a plain addition without a lock; the text is rendered by prometheus-client.
"""

from service.metrics.families import (
    BATCH_SIZE_BUCKETS,
    CONFIDENCE_BUCKETS,
    DURATION_BUCKETS_S,
    MAX_LABELS,
    OTHER_LABEL,
    Metrics,
    ModelMetrics,
    QueueStatus,
    Stage,
    render,
)
from service.metrics.summing import Snapshot, lasting, registry_of, snapshot, total
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
    "Snapshot",
    "Stage",
    "lasting",
    "registry_of",
    "render",
    "snapshot",
    "total",
    "triton_names",
]
