"""What a network costs: counted from its program, timed in the runtime, as trained and as served.

::

    network ─ trace ─┬─ count
                     └─ ONNX ─ profile, every BatchNorm computed as one     before the fold
            ─ fold ──┬─ count
                     └─ ONNX ─ profile, all optimisations on                after it
"""

from __future__ import annotations

import tempfile
from dataclasses import replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.console import Console
from torch import nn
from torch.export import ExportedProgram

from model_export import architectures, cost, data, export, report
from model_export.config import DataConfig, ModelConfig
from model_export.errors import FoldRefused, InvalidConfig, ModelError
from model_export.pipeline import networks
from model_export.pipeline.progress import shown
from model_export.records import CostComparison, CostTable, LayerTime, Objective
from service.artifact import InputContract, Precision, Task


def before_fold(
    network: nn.Module, contract: InputContract, image: NDArray[np.uint8], console: Console
) -> CostTable:
    """The cost of ``network`` as it was trained.

    Args:
        network: Evaluating.
        contract: What its pictures are like.
        image: uint8 [H, W, C], to measure the times with.
        console: Where it is said why times are missing.
    """
    program = networks.trace(network, (contract.channels, contract.height, contract.width))
    times = _times(program, contract, image, console, keeps_batch_norms=True)
    return replace(cost.count(program), times=times)


def compare(
    model: ModelConfig,
    config: DataConfig,
    *,
    classes: int,
    objective: Objective,
    console: Console,
) -> CostComparison:
    """What a network costs before and after its fold, on random pictures: no data set is needed.

    Args:
        model: Its weights, trained or not, do not change what it costs.
        config: Its ``input`` says how large a picture is.
        classes: Logits, where no file of labels says it; at least 1.
        objective: Of the fold.
        console: Where progress is shown.

    Raises:
        InvalidConfig: Without a size, or without logits.
        ModelError: It cannot be built, or traced.
        FoldRefused: One of its BatchNorms is no constant affine map.
    """
    if classes < 1:
        raise InvalidConfig(f"--classes {classes}: must be at least 1")
    contract = data.contract_for(config, None)
    shape = (contract.channels, contract.height, contract.width)
    labels = classes if model.labels is None else len(data.read_labels(model.labels))
    network = architectures.load(model, input_shape=shape, classes=labels).eval()
    image = np.random.default_rng(0).integers(0, 256, (*shape[1:], shape[0]), dtype=np.uint8)
    with shown("counting and timing what it costs", console):
        before = before_fold(network, contract, image, console)
    with shown("folding, and timing that", console):
        program = networks.folded(network, shape, objective).program
        after = replace(cost.count(program), times=_times(program, contract, image, console))
    return CostComparison(before, after)


def show(found: CostComparison, model: ModelConfig, console: Console) -> None:
    """Both tables' figures in the terminal."""
    title = f"{model.model or model.architecture}: cost of one picture before the fold"
    cost.print_table(found.before, console, title=title)
    cost.print_comparison(found.before, found.after, console)


def require_place(file: Path) -> None:
    """Checks, before anything is counted, that there is a folder for the picture.

    Raises:
        InvalidConfig: There is none.
    """
    if not file.absolute().parent.is_dir():
        raise InvalidConfig(f"--picture {file}: {file.parent} is no folder; make it first")


def write_picture(found: CostTable | CostComparison, file: Path) -> None:
    """The costs layer by layer, as an SVG file.

    Raises:
        InvalidConfig: It cannot be written there.
    """
    if isinstance(found, CostComparison):
        tables = {"before the fold": found.before, "after the fold": found.after}
    else:
        tables = {"before the fold": found}
    try:
        file.write_text(report.cost_picture(tables), encoding="utf-8")
    except OSError as error:
        raise InvalidConfig(f"--picture {file}: {error.strerror or error}") from error


def _times(
    program: ExportedProgram,
    contract: InputContract,
    image: NDArray[np.uint8],
    console: Console,
    *,
    keeps_batch_norms: bool = False,
) -> tuple[LayerTime, ...]:
    """Of every node for one picture; none, and the reason is shown, where ONNX cannot express one."""
    try:
        network = export.network_graph(program)
    except (ModelError, FoldRefused) as error:
        console.print(f"not timed: {error}", markup=False, soft_wrap=True)
        return ()
    export.lower(network)
    graph = export.served_graph(network, contract, Task.MULTICLASS, _classes(program))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / Precision.FP32.file_name
        export.write_model_file(graph, path)
        return cost.profile(path, image, keeps_batch_norms=keeps_batch_norms)


def _classes(program: ExportedProgram) -> int:
    (output,) = (node for node in program.graph.nodes if node.op == "output")
    return int(output.args[0][0].meta["val"].shape[-1])
