"""Where the time goes: ONNX Runtime's own profile of a model file, node by node.

The runtime fuses BatchNorms into convolutions by itself. To see what they cost as they were trained, those
fusions can be switched off.
"""

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
REPEATS: Final = 100
_MICROSECOND: Final = 1e-6
# The runtime's optimisers that make a BatchNorm disappear.
_BATCH_NORM_FUSIONS: Final = ("ConvBNFusion", "MatMul_BatchNormalization_Fusion")
# What it calls one that it computes in its blocked layout, as a convolution of each channel by itself.
_BLOCKED_BATCH_NORM: Final = "_bn_nchwc"


def profile(
    model_file: Path, image: NDArray[np.uint8], *, keeps_batch_norms: bool = False
) -> tuple[LayerTime, ...]:
    """The shortest time of every node for one picture, in the order of the optimised graph.

    The shortest of many: what else the machine does only ever adds to it.

    The runtime has fused and moved nodes by then: a name is that of the first of those that became one.

    Args:
        model_file: The ONNX file.
        image: uint8 [H, W, C].
        keeps_batch_norms: Compute every BatchNorm as one, whatever the runtime could make of it.
    """
    with tempfile.TemporaryDirectory() as folder:
        options = ort.SessionOptions()
        options.enable_profiling = True
        options.profile_file_prefix = str(Path(folder) / "profile")
        session = ort.InferenceSession(
            str(model_file),
            options,
            providers=["CPUExecutionProvider"],
            disabled_optimizers=list(_BATCH_NORM_FUSIONS) if keeps_batch_norms else None,
        )
        for _ in range(WARM_UP + REPEATS):
            session.run(None, {INPUT_NAME: image[np.newaxis]})
        events = json.loads(Path(session.end_profiling()).read_bytes())
    durations: dict[tuple[str, str], list[float]] = defaultdict(list)
    for event in events:
        if event.get("cat") == "Node" and event["name"].endswith("_kernel_time"):
            name = event["name"].removesuffix("_kernel_time")
            operator = "BatchNormalization" if _BLOCKED_BATCH_NORM in name else event["args"]["op_name"]
            durations[name, operator].append(event["dur"] * _MICROSECOND)
    return tuple(
        LayerTime(name, operator, min(times[WARM_UP:])) for (name, operator), times in durations.items()
    )
