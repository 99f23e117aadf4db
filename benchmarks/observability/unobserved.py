"""``python -m benchmarks.observability.unobserved FLAGS``: the service, counting and saying nothing."""

from __future__ import annotations

import sys

from service.__main__ import main
from service.app.journal import Journal
from service.metrics import Metrics, ModelMetrics
from service.metrics.series import Counter, Gauge, Histogram

_SILENCED = (
    (Counter, ("inc",)),
    (Gauge, ("inc", "dec", "set")),
    (Histogram, ("observe", "observe_all", "observe_times")),
    (ModelMetrics, ("observe_stage", "batch_finished")),
    (Metrics, ("request_finished", "request_rejected", "model_loaded")),
    (Journal, ("ended",)),
)


def _nothing(*_: object, **__: object) -> None:
    """In the place of what observes."""


if __name__ == "__main__":
    for owner, names in _SILENCED:
        for name in names:
            setattr(owner, name, _nothing)
    sys.exit(main([*sys.argv[1:], "--log-level", "error"]))
