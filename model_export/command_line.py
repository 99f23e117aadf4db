"""The export's flags and stages: what was typed becomes a `RunConfig`, what a stage found becomes text.

A stage alone takes its settings from the work folder, where the stage before it left them; flags
that are given again replace them.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from pydantic import TypeAdapter
from rich.console import Console

from model_export.architectures import ARCHITECTURES
from model_export.config import DataConfig, ModelConfig, RunConfig, TrainConfig
from model_export.errors import ExportError, InvalidConfig
from model_export.pipeline import Run, WorkDir
from service.errors import FoldserveError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130

_EXAMPLES = """\
examples:
  python -m model_export run
        scikit-learn's digits → models/digits/1, in well under a minute, without a download
  python -m model_export run --dataset mnist --data-dir data/mnist --name mnist
  python -m model_export run --dataset imagefolder --data-dir photos/ --input 3x64x64 --name photos
  python -m model_export run --model mine.nets:make --weights mine.pt --input 3x224x224 \
        --labels labels.txt --dataset imagefolder --data-dir held_back/ --name mine
        a network that is already trained; the pictures are what it is proven on
  python -m model_export train --name mine && python -m model_export fold --name mine --objective fewest
        stage by stage; the results wait in runs/mine/
"""


@dataclass(frozen=True, slots=True)
class Stage:
    """One subcommand.

    Attributes:
        summary: For ``--help``.
        work: What it does; its result is shown, or written as JSON.
        starts_afresh: It begins a run, so it does not take settings from the work folder.
    """

    summary: str
    work: Callable[[Run], object]
    starts_afresh: bool = False


STAGES: Final[Mapping[str, Stage]] = MappingProxyType(
    {
        "run": Stage("every stage in order, then publish", Run.all, starts_afresh=True),
        "train": Stage("train a network", Run.train, starts_afresh=True),
        "cost": Stage("parameters, bytes and MACs, layer by layer", Run.cost),
        "fold": Stage("fold every BatchNorm away that can be", Run.fold),
        "export": Stage("write model.onnx", Run.export),
        "verify": Stage("prove that model.onnx is the network it was made from", Run.verify),
        "publish": Stage("take the verified file into the model repository", Run.publish),
    }
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one stage; the process's exit code.

    Args:
        arguments: Without the program's name; None: those of the process.
    """
    parsed = parser().parse_args(arguments)
    # With --json the result alone is on stdout, so that it can be piped on.
    console = Console(stderr=parsed.json)
    try:
        run = run_for(parsed, console)
        result = STAGES[parsed.stage].work(run)
    except InvalidConfig as error:
        return _fail(error, EXIT_USAGE)
    except (ExportError, FoldserveError) as error:
        return _fail(error, EXIT_FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted; what was finished is in the work folder", EXIT_INTERRUPTED)
    if parsed.json:
        sys.stdout.buffer.write(TypeAdapter(type(result)).dump_json(result, indent=2) + b"\n")
    return 0


def run_for(parsed: argparse.Namespace, console: Console) -> Run:
    """The run that the parsed command line asks for; its settings are in the work folder afterwards.

    Raises:
        InvalidConfig: Flags that cannot be.
    """
    flags = vars(parsed)
    defaults = _defaults(flags)
    workdir = WorkDir(flags.get("workdir", Path("runs") / defaults.name))
    if not STAGES[parsed.stage].starts_afresh and workdir.has("config.json"):
        defaults = workdir.read("config.json", RunConfig)
    config = _replaced(defaults, {"epochs": 0, **flags} if "weights" in flags else flags)
    workdir.write("config.json", config)
    return Run(config, workdir, console)


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="python -m model_export",
        description="Train, fold, export and prove a network; the result is one file that serves itself.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = top.add_subparsers(dest="stage", required=True, metavar="STAGE")
    for name, stage in STAGES.items():
        subparser = subparsers.add_parser(
            name,
            help=stage.summary,
            description=stage.summary[0].upper() + stage.summary[1:] + ".",
            # A flag that was not given is absent, so that it does not hide what the work folder says.
            argument_default=argparse.SUPPRESS,
        )
        _add_data_flags(subparser.add_argument_group("data"))
        _add_network_flags(subparser.add_argument_group("network"))
        _add_run_flags(subparser.add_argument_group("run"))
    return top


def _add_data_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--dataset",
        choices=["digits", "mnist", "cifar10", "imagefolder"],
        help="which pictures (default: digits, which scikit-learn carries)",
    )
    group.add_argument("--data-dir", type=Path, metavar="DIR", help="where they are; a folder or a tar")
    group.add_argument("--limit", type=int, metavar="N", help="train on at most N pictures")
    group.add_argument("--input", type=shape, metavar="CxHxW", help="size, e.g. 3x224x224")
    group.add_argument(
        "--resize",
        choices=["stretch", "shorter_side", "letterbox"],
        help="how pictures of another size become H×W (default: stretch)",
    )
    group.add_argument("--resize-to", type=int, metavar="N", help="shorter side before the centre crop")
    group.add_argument(
        "--interpolation",
        choices=["nearest", "bilinear", "bicubic", "lanczos"],
        help="resampling filter (default: bilinear)",
    )
    group.add_argument("--channels", choices=["rgb", "bgr", "gray"], help="colour order")
    group.add_argument("--mean", type=numbers, metavar="M,…", help="of pixels in 0…1 (default: measured)")
    group.add_argument("--std", type=numbers, metavar="S,…", help="of pixels in 0…1 (default: measured)")


def _add_network_flags(group: argparse._ArgumentGroup) -> None:
    choice = group.add_mutually_exclusive_group()
    choice.add_argument(
        "--architecture",
        choices=sorted(ARCHITECTURES),
        metavar="NAME",
        help=f"one of ours: {', '.join(sorted(ARCHITECTURES))} (default: article_cnn)",
    )
    choice.add_argument(
        "--model", metavar="PACKAGE.MODULE:FACTORY", help="anything callable that returns an nn.Module"
    )
    group.add_argument(
        "--weights",
        type=Path,
        metavar="FILE",
        help="state dict, safetensors or torch; then nothing is trained",
    )
    group.add_argument("--labels", type=Path, metavar="FILE", help="one a line, in the order of the logits")
    group.add_argument(
        "--epochs",
        type=int,
        metavar="N",
        help="passes over the training data (default: 10; with --weights: 0)",
    )
    group.add_argument("--batch-size", type=int, metavar="N", help="in training (default: 64)")
    group.add_argument("--learning-rate", type=float, metavar="R", help="of Adam (default: 0.001)")
    group.add_argument("--seed", type=int, metavar="N", help="of weights and shuffling (default: 0)")
    group.add_argument(
        "--objective",
        choices=["fewest", "speed"],
        help="leave the fewest affine maps, or place them where the runtime is fastest (default: speed)",
    )


def _add_run_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--name", metavar="NAME", help="of the model (default: that of the data set)")
    group.add_argument(
        "--repository", type=Path, metavar="DIR", help="where models are published (default: models)"
    )
    group.add_argument("--workdir", type=Path, metavar="DIR", help="what stages hand on (default: runs/NAME)")
    group.add_argument(
        "--json", action="store_true", default=False, help="the stage's result as JSON on stdout"
    )


def shape(text: str) -> tuple[int, int, int]:
    """``3x224x224`` as C, H, W."""
    parts = text.lower().split("x")
    if len(parts) != 3 or not all(part.isdigit() and int(part) > 0 for part in parts):
        raise argparse.ArgumentTypeError(f"'{text}' is not of the form CxHxW, e.g. 3x224x224")
    channels, height, width = map(int, parts)
    return channels, height, width


def numbers(text: str) -> tuple[float, ...]:
    """``0.485,0.456,0.406`` as numbers, one a channel."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list like 0.485,0.456,0.406") from None


_DATA_FIELDS: Final = frozenset(DataConfig.__dataclass_fields__) - {"seed"}  # `--seed` leaves the split alone
_MODEL_FIELDS: Final = frozenset(ModelConfig.__dataclass_fields__)
_TRAIN_FIELDS: Final = frozenset(TrainConfig.__dataclass_fields__)
_RUN_FIELDS: Final = frozenset({"name", "repository", "objective"})


def _defaults(flags: Mapping[str, Any]) -> RunConfig:
    return RunConfig(name=flags.get("name", flags.get("dataset", DataConfig().dataset)))


def _replaced(config: RunConfig, flags: Mapping[str, Any]) -> RunConfig:
    """``config`` with every flag that was given."""
    return replace(
        config,
        data=replace(config.data, **_chosen(flags, _DATA_FIELDS)),
        model=replace(config.model, **_chosen(flags, _MODEL_FIELDS)),
        train=replace(config.train, **_chosen(flags, _TRAIN_FIELDS)),
        **_chosen(flags, _RUN_FIELDS),
    )


def _chosen(flags: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if name in names}


def _fail(error: object, code: int) -> int:
    Console(stderr=True).print(
        f"error: {error}", style="bold red", markup=False, highlight=False, soft_wrap=True
    )
    return code
