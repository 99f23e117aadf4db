"""The flags of every stage."""

from __future__ import annotations

import argparse
from pathlib import Path

from model_export.architectures import ARCHITECTURES
from model_export.command_line.stages import STAGES

ADOPT = "adopt"
COST = "cost"
_ADOPT_SUMMARY = "wrap an ONNX classifier from another framework, prove it and publish it"
_EXAMPLES = """\
examples:
  python -m model_export run
        scikit-learn's digits → models/digits/1, in well under a minute, without a download
  python -m model_export run --dataset mnist --data-dir data/mnist --name mnist
  python -m model_export run --dataset imagefolder --data-dir photos/ --input 3x64x64 --name photos
  python -m model_export run --model mine.nets:make --weights mine.pt --input 3x224x224 \\
        --labels labels.txt --dataset imagefolder --data-dir held_back/ --name mine
        a network that is already trained; the pictures are what it is proven on
  python -m model_export cost --architecture resnet18 --input 3x224x224
        counted and timed before and after the fold, with random weights and pictures
  python -m model_export train --name mine && python -m model_export fold --name mine --objective fewest
        stage by stage; the results wait in runs/mine/

exit codes: 0 done; 1 a stage failed; 2 the command line is wrong; 130 interrupted.
An error is one line on stderr. With --json the result alone is on stdout.
"""


_STAGE_NOTE = """\
leaves behind, in runs/NAME unless said otherwise:
  {stage.leaves}

example:
  python -m model_export {name} {stage.example}
"""
_ADOPT_EXAMPLES = """\
Pixels in 0…1 go in as they are unless --mean and --std say otherwise (one value, or one a channel);
a network that wants 0…255 has --std 0.00392156862745098, one that wants 0…16 has --std 0.0625.

examples:
  python -m model_export adopt resnet50.onnx --output logits --labels imagenet.txt \\
        --resize shorter_side --resize-to 256 --mean 0.485,0.456,0.406 --std 0.229,0.224,0.225
  python -m model_export adopt forest.onnx --output probabilities --input 1x8x8 --std 0.0625 \\
        --dataset digits --name forest
"""


def parser() -> argparse.ArgumentParser:
    """The whole command line."""
    top = argparse.ArgumentParser(
        prog="python -m model_export",
        description="Train, fold, export and prove a network; the result is one file that serves itself.",
        epilog=_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    subparsers = top.add_subparsers(dest="stage", required=True, metavar="STAGE")
    _add_adopt(subparsers)
    for name, stage in STAGES.items():
        subparser = subparsers.add_parser(
            name,
            help=stage.summary,
            description=stage.summary[0].upper() + stage.summary[1:] + ".",
            epilog=_STAGE_NOTE.format(stage=stage, name=name),
            formatter_class=argparse.RawDescriptionHelpFormatter,
            # A flag that was not given is absent, so that it does not hide what the work folder says.
            argument_default=argparse.SUPPRESS,
        )
        _add_data_flags(subparser.add_argument_group("data"))
        _add_network_flags(subparser.add_argument_group("network"))
        if name in ("run", "plan", "train"):
            _add_training_flags(subparser.add_argument_group("training"))
        if name in ("run", "plan", "train", "calibrate"):
            _add_calibration_flags(subparser.add_argument_group("calibration"))
        if name == COST:
            _add_cost_flags(subparser.add_argument_group("cost"))
        if name in ("run", "quantize"):
            _add_quantization_flags(subparser.add_argument_group("quantization"))
        _add_run_flags(subparser.add_argument_group("run"))
    return top


def _add_adopt(subparsers: argparse._SubParsersAction[argparse.ArgumentParser]) -> None:
    subparser = subparsers.add_parser(
        ADOPT,
        help=_ADOPT_SUMMARY,
        description=_ADOPT_SUMMARY[0].upper() + _ADOPT_SUMMARY[1:] + ".",
        epilog=_ADOPT_EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        argument_default=argparse.SUPPRESS,
    )
    subparser.add_argument("file", type=Path, metavar="FILE.onnx")
    subparser.add_argument(
        "--output", required=True, choices=["logits", "probabilities"], help="what it gives"
    )
    subparser.add_argument(
        "--output-name", metavar="NAME", help="of the output that is meant, if several can be"
    )
    subparser.add_argument(
        "--task",
        choices=["multiclass", "multilabel"],
        help="one label is right, or any number (default: one)",
    )
    subparser.add_argument(
        "--labels", type=Path, metavar="FILE", help="one a line, in the order of the outputs"
    )
    _add_data_flags(subparser.add_argument_group("data"))
    _add_quantization_flags(subparser.add_argument_group("quantization"))
    _add_run_flags(subparser.add_argument_group("run"))


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
    for flag, metavar in (("--mean", "M,…"), ("--std", "S,…")):
        group.add_argument(
            flag,
            type=numbers,
            metavar=metavar,
            help="of pixels in 0…1, one a channel or one for all (default: measured; adopt: 0 and 1)",
        )


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
        help="state dict, safetensors or torch; nothing is trained then, unless --epochs says so",
    )
    group.add_argument("--labels", type=Path, metavar="FILE", help="one a line, in the order of the logits")
    group.add_argument(
        "--objective",
        choices=["fewest", "speed"],
        help="leave the fewest affine maps, or place them where the runtime is fastest (default: speed)",
    )


def _add_training_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument("--epochs", type=int, metavar="N", help="passes over the data (default: 10)")
    group.add_argument("--seed", type=int, metavar="N", help="of weights, order, augmentation (default: 0)")
    group.add_argument("--batch-size", type=int, metavar="N", help="instances a step (default: 64)")
    group.add_argument("--learning-rate", type=float, metavar="R", help="the highest one (default: 0.001)")
    group.add_argument("--weight-decay", type=float, metavar="R", help="of every parameter (default: 0)")
    group.add_argument(
        "--normalization",
        choices=["article", "planned"],
        help="BatchNorms as the article has them, or planned from cost and data (default: article)",
    )
    group.add_argument("--optimizer", choices=["adam", "sgd"], help="default: adam")
    group.add_argument(
        "--schedule", choices=["constant", "cosine"], help="of the learning rate (default: constant)"
    )
    group.add_argument("--warmup-epochs", type=float, metavar="N", help="it rises from zero (default: 0)")
    group.add_argument(
        "--augmentation", choices=["none", "shift", "shift_flip"], help="of the pictures (default: none)"
    )
    group.add_argument(
        "--patience", type=int, metavar="N", help="stop after N epochs without a better one; keep the best"
    )
    group.add_argument(
        "--fold-aware-epochs",
        type=int,
        metavar="N",
        help="train so many of the last epochs as it is served, statistics fixed (default: 0)",
    )
    group.add_argument(
        "--label-smoothing", type=float, metavar="R", help="share spread over all labels (default: 0)"
    )
    group.add_argument(
        "--class-weights", choices=["none", "balanced"], help="for unequal classes (default: none)"
    )
    group.add_argument(
        "--device", choices=["auto", "cpu", "cuda"], help="auto takes CUDA where it works (default)"
    )
    group.add_argument("--mixed-precision", action="store_true", help="half precision where safe; CUDA only")
    group.add_argument(
        "--resume", action="store_true", help="go on with an interrupted training, with its settings"
    )


def _add_calibration_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--calibrate-on",
        type=Path,
        metavar="DIR",
        help="unlabeled pictures (a folder or a tar) from where it will be used, for its running statistics",
    )


def _add_quantization_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--precisions",
        type=precisions,
        metavar="int8,fp16",
        help="beside float32 (default: none in a run, int8 for quantize)",
    )
    group.add_argument(
        "--max-accuracy-drop",
        type=float,
        metavar="POINTS",
        help="more, and nothing is published (default: 0.5)",
    )
    group.add_argument(
        "--keep-first", action="store_true", help="the first layer with weights stays in float"
    )
    group.add_argument("--keep-last", action="store_true", help="the last layer with weights stays in float")
    group.add_argument(
        "--calibration-instances",
        type=int,
        metavar="N",
        help="training pictures that int8's ranges are taken from (default: 256)",
    )


def _add_cost_flags(group: argparse._ArgumentGroup) -> None:
    group.add_argument(
        "--classes",
        type=int,
        metavar="K",
        help="logits of a network without a data set, which --input alone asks for (default: 1000)",
    )
    group.add_argument(
        "--picture", type=Path, metavar="FILE.svg", help="the costs before and after the fold as a chart"
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


def precisions(text: str) -> tuple[str, ...]:
    """``int8,fp16`` as names."""
    names = tuple(text.split(","))
    if not set(names) <= {"int8", "fp16"}:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list of int8 and fp16")
    return names


def numbers(text: str) -> tuple[float, ...]:
    """``0.485,0.456,0.406`` as numbers, one a channel."""
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise argparse.ArgumentTypeError(f"'{text}' is not a list like 0.485,0.456,0.406") from None
