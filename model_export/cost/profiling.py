"""Where the time goes: ONNX Runtime's own profile of a model file, node by node."""

from __future__ import annotations

import json
import tempfile
from collections import defaultdict
from pathlib import Path
from typing import Final

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from model_export.records import LayerTime
from service.artifact import INPUT_NAME

WARM_UP: Final = 5
REPEATS: Final = 30
_MICROSECOND: Final = 1e-6


def profile(model_file: Path, image: NDArray[np.uint8]) -> tuple[LayerTime, ...]:
    """The median time of every node for one picture, in the order of the optimised graph.

    The runtime has fused and moved nodes by then: a name is that of the first of those that became one.

    Args:
        model_file: The ONNX file.
        image: uint8 [H, W, C].
    """
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(str(model_file), options, providers=["CPUExecutionProvider"])
        for _ in range(WARM_UP + REPEATS):
            session.run(None, {INPUT_NAME: image[np.newaxis]})
        events = json.loads(Path(session.end_profiling()).read_bytes())
    durations: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            durations[name, event["args"]["op_name"]].append(event["dur"] * _MICROSECOND)
    return tuple(
        LayerTime(name, operator, float(np.median(times[WARM_UP:])))
        for (name, operator), times in durations.items()
    )
