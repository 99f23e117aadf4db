"""``python -m benchmarks.observability.unobserved FLAGS``: the service, counting and saying nothing.

What remains is the calls themselves, to functions that do nothing, and the count of requests in flight.
"""

from __future__ import annotations

import sys
from collections import deque
from typing import Any, Final, get_args

from service.__main__ import main
from service.app.journal import Journal
from service.metrics import Metrics, ModelMetrics, Stage
from service.metrics.series import Counter, Gauge, Histogram

_SILENCED: Final = (
    (Counter, ("inc",)),
    (Gauge, ("set",)),
    (Histogram, ("observe", "observe_all", "observe_times")),
    (ModelMetrics, ("batch_finished",)),
    (Metrics, ("request_finished", "request_rejected", "model_loaded")),
    (Journal, ("ended",)),
)
# As cheap as what it replaces: a method of a container written in C, that keeps nothing.
_forget: Final = deque[float](maxlen=0).append


class _DeafMetrics(ModelMetrics):
    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        self.note = dict.fromkeys(get_args(Stage), _forget)


def _nothing(*_: object, **__: object) -> None:
    """In the place of what observes."""


if __name__ == "__main__":
    for owner, names in _SILENCED:
        for name in names:
            setattr(owner, name, _nothing)
    sys.modules["service.metrics.recording"].ModelMetrics = _DeafMetrics  # type: ignore[attr-defined]  # its own name there
    sys.exit(main([*sys.argv[1:], "--log-level", "error"]))
