"""Files of other precisions beside a float32 one: made, judged, proven.

::

    training pictures    ranges of every value              ─▶ int8
    validation pictures  which layers stay in float, and whether the accuracy holds: the gate
    test pictures        what is reported; nothing is chosen by them
"""

from __future__ import annotations

from pathlib import Path

from rich.console import Console

from model_export import cost, export, quantization
from model_export.config import QuantizeConfig
from model_export.data import ImageDataset
from model_export.pipeline import metadata, summaries
from model_export.pipeline.progress import shown
from model_export.pipeline.proofs import verify_precision
from model_export.records import PrecisionOutcome
from service.artifact import Precision

TIMED_BATCH = 8  # as a busy service forms them


def make(
    float_file: Path,
    precision: Precision,
    dataset: ImageDataset,
    config: QuantizeConfig,
    console: Console,
    *,
    source: Path | None = None,
) -> PrecisionOutcome:
    """Writes the file of another precision beside ``float_file``, with its proofs in it.

    Args:
        float_file: Proven, with its metadata.
        precision: Not float32.
        dataset: Calibrated, judged and measured on its three splits.
        config: What it may cost.
        console: Where progress is shown.
        source: The same graph in a form that is easier to quantize; None: ``float_file`` itself.

    Raises:
        InvalidConfig: Nothing in the file could be made smaller.
        VerificationFailed: It loses too much accuracy, or a proof did not hold.
    """
    source = source or float_file
    quantization.require_quantizable(source, precision.value)
    with shown(f"making and judging {precision.value}", console):
        outcome = _made(float_file, source, precision, dataset, config, console)
    summaries.print_precision(outcome, console)
    return outcome


def _made(
    float_file: Path,
    source: Path,
    precision: Precision,
    dataset: ImageDataset,
    config: QuantizeConfig,
    console: Console,
) -> PrecisionOutcome:
    _, float_metadata = export.read_model_file(float_file)
    quantize = quantization.quantize_int8 if precision is Precision.INT8 else quantization.quantize_fp16
    graph, made = quantize(source, dataset, config, console=console)
    path = float_file.with_name(precision.file_name)
    export.write_model_file(graph, path)
    description = metadata.describe_precision(path, float_metadata, precision)
    found = verify_precision(
        path,
        description,
        float_file=float_file,
        dataset=dataset,
        max_accuracy_drop=config.max_accuracy_drop,
    )
    export.write_model_file(graph, path, metadata.proven(description, found))
    return PrecisionOutcome(
        made,
        found,
        bytes=path.stat().st_size,
        float_bytes=float_file.stat().st_size,
        speed_up=cost.speed_up(path, float_file, dataset.test.images[:TIMED_BATCH], console=console),
    )
