"""Public optimisers, each behind one signature, with all that it offers turned on.

::

    on ONNX     exporter · onnxscript · ONNX Runtime · onnxslim · onnxsim · onnxoptimizer     graph ▶ graph
    on torch    torch.fx fuse · torch.ao fuse_fx · this project's fold                       model ▶ program
"""

from __future__ import annotations

import copy
import logging
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path

import onnx
import onnxoptimizer
import onnxruntime as ort
import onnxscript.optimizer
import onnxscript.rewriter
import onnxsim
import onnxslim
import torch
from torch import Tensor, nn
from torch.ao.quantization.quantize_fx import fuse_fx
from torch.export import ExportedProgram
from torch.fx.experimental import optimization

from model_export.folding import fold
from tests.folding.collection.judging import exported, quiet
from tests.folding.collection.registry import DynamicShapes

OnnxPass = Callable[[onnx.ModelProto], onnx.ModelProto]
TorchPass = Callable[[nn.Module, tuple[Tensor, ...], DynamicShapes | None], ExportedProgram]


@dataclass(frozen=True)
class Tool:
    """One optimiser.

    Attributes:
        name: As the table shows it.
        package: Whose version the table shows; None: this project.
        on_onnx: How it rewrites an ONNX graph, or
        on_torch: how it rewrites a module.
    """

    name: str
    package: str | None
    on_onnx: OnnxPass | None = None
    on_torch: TorchPass | None = None

    @property
    def release(self) -> str:
        """The installed version."""
        return version(self.package) if self.package else "this project"


def to_onnx(program: ExportedProgram) -> tuple[onnx.ModelProto, Callable[[], onnx.ModelProto]]:
    """The network as torch's exporter writes it, and its own optimiser's form of that, when it is called."""
    logging.getLogger("torch.onnx").setLevel(logging.ERROR)
    with quiet():
        converted = torch.onnx.export(program, dynamo=True, optimize=False, verbose=False)
    if converted is None:
        raise RuntimeError("torch.onnx.export gave nothing")
    plain: onnx.ModelProto = converted.model_proto

    def optimised() -> onnx.ModelProto:
        converted.optimize()
        model: onnx.ModelProto = converted.model_proto
        return model

    return plain, optimised


def _onnxscript(model: onnx.ModelProto) -> onnx.ModelProto:
    rewritten = onnxscript.rewriter.rewrite(onnxscript.optimizer.optimize(model))
    optimised: onnx.ModelProto = onnxscript.optimizer.optimize(rewritten)
    return optimised


def _onnx_runtime(model: onnx.ModelProto) -> onnx.ModelProto:
    """Every optimisation that ONNX Runtime has, saved as it would run."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "optimised.onnx"
        options = ort.SessionOptions()
        options.graph_optimization_level = ort.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.optimized_model_filepath = str(path)
        options.log_severity_level = 4
        ort.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
        return onnx.load(path)


def _onnxslim(model: onnx.ModelProto) -> onnx.ModelProto:
    slimmed = onnxslim.slim(copy.deepcopy(model))
    if not isinstance(slimmed, onnx.ModelProto):
        raise RuntimeError("onnxslim gave no model")
    return slimmed


def _onnxsim(model: onnx.ModelProto) -> onnx.ModelProto:
    simplified: onnx.ModelProto
    simplified, is_checked = onnxsim.simplify(model)
    if not is_checked:
        raise RuntimeError("onnxsim's own check failed")
    return simplified


def _onnxoptimizer(model: onnx.ModelProto) -> onnx.ModelProto:
    passes = onnxoptimizer.get_fuse_and_elimination_passes()
    optimised: onnx.ModelProto = onnxoptimizer.optimize(model, passes)
    return optimised


def _fx_fuse(
    model: nn.Module, inputs: tuple[Tensor, ...], dynamic_shapes: DynamicShapes | None
) -> ExportedProgram:
    return exported(optimization.fuse(model), inputs, dynamic_shapes)


def _ao_fuse(
    model: nn.Module, inputs: tuple[Tensor, ...], dynamic_shapes: DynamicShapes | None
) -> ExportedProgram:
    return exported(fuse_fx(model), inputs, dynamic_shapes)


def _this_project(
    model: nn.Module, inputs: tuple[Tensor, ...], dynamic_shapes: DynamicShapes | None
) -> ExportedProgram:
    return fold(model, inputs, dynamic_shapes=dynamic_shapes).program


# The exporter's optimiser runs while it exports, so its pass is the second thing that `to_onnx` gives.
EXPORTER = Tool("torch.onnx.export", "torch")
ONNX_TOOLS = (
    Tool("onnxscript", "onnxscript", on_onnx=_onnxscript),
    Tool("ONNX Runtime", "onnxruntime-gpu", on_onnx=_onnx_runtime),
    Tool("onnxslim", "onnxslim", on_onnx=_onnxslim),
    Tool("onnxsim", "onnxsim", on_onnx=_onnxsim),
    Tool("onnxoptimizer", "onnxoptimizer", on_onnx=_onnxoptimizer),
)
TORCH_TOOLS = (
    Tool("torch.fx fuse", "torch", on_torch=_fx_fuse),
    Tool("torch.ao fuse_fx", "torch", on_torch=_ao_fuse),
    Tool("model_export.folding", None, on_torch=_this_project),
)
PUBLIC_TOOLS = (EXPORTER, *ONNX_TOOLS, *TORCH_TOOLS[:-1])
ALL_TOOLS = (EXPORTER, *ONNX_TOOLS, *TORCH_TOOLS)
