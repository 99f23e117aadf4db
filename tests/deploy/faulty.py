"""``python -m tests.deploy.faulty FLAGS``: the real service, whose engine does wrong when it is told to.

The variable ``FAULT_FILE`` names a file; what stands in it, once it is there, is what is wrong. An engine
that never ends leaves a file beside it whose name ends in ``.hangs``.
"""

from __future__ import annotations

import os
import sys
import threading
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from service.__main__ import main
from service.engine import Engine

_FAULT = Path(os.environ["FAULT_FILE"])
# Seconds that a batch takes longer; for anything else it never ends.
_DELAYS_S = {"slow": 0.11, "steady": 0.02}  # just beyond the latency objective; well within
_healthy = Engine.run


def _run(self: Engine, pixels: NDArray[np.uint8]) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
    fault = _FAULT.read_text() if _FAULT.exists() else ""
    if fault == "failing":
        raise RuntimeError("poisoned")
    if fault and fault not in _DELAYS_S:
        _FAULT.with_suffix(".hangs").touch()
    if fault:
        threading.Event().wait(_DELAYS_S.get(fault))
    return _healthy(self, pixels)


if __name__ == "__main__":
    Engine.run = _run  # type: ignore[method-assign]  # the fault that this program exists for
    sys.exit(main(sys.argv[1:]))
