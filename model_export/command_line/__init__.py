"""The export's flags and stages: what was typed becomes a `RunConfig`, what a stage found becomes text.

A stage alone takes its settings from the work folder, where the stage before it left them; flags
that are given again replace them.
"""

from __future__ import annotations

import argparse
import logging
import sys
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

import onnxruntime as ort
from pydantic import TypeAdapter
from rich.console import Console

from model_export.command_line.flags import ADOPT, COST, parser
from model_export.command_line.stages import STAGES
from model_export.config import AdoptConfig, DataConfig, ModelConfig, QuantizeConfig, RunConfig, TrainConfig
from model_export.errors import ExportError, InvalidConfig
from model_export.pipeline import Run, WorkDir, adopt, costs
from model_export.records import CostComparison, CostTable
from service.errors import FoldserveError

EXIT_FAILED: Final = 1
EXIT_USAGE: Final = 2
EXIT_INTERRUPTED: Final = 130
_ONLY_FATAL: Final = 4  # of ONNX Runtime's severities
IMAGENET_CLASSES: Final = 1000  # what published figures of a network's cost are for


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs one stage; the process's exit code.

    Args:
        arguments: Without the program's name; None: those of the process.
    """
    parsed = parser().parse_args(arguments)
    # Their remarks are for those who write torch and ONNX Runtime; what fails is raised besides.
    logging.getLogger("torch").setLevel(logging.ERROR)
    ort.set_default_logger_severity(_ONLY_FATAL)
    # With --json the result alone is on stdout, so that it can be piped on.
    console = Console(stderr=parsed.json)
    try:
        result = _work(parsed, console)
    except InvalidConfig as error:
        return _fail(error, EXIT_USAGE)
    except (ExportError, FoldserveError) as error:
        return _fail(error, EXIT_FAILED)
    except OSError as error:  # a full disk, a folder without permission
        return _fail(f"{error.filename or 'a file'}: {error.strerror or error}", EXIT_FAILED)
    except KeyboardInterrupt:
        return _fail("interrupted; --resume goes on with what is in the work folder", EXIT_INTERRUPTED)
    if parsed.json:
        sys.stdout.buffer.write(TypeAdapter(type(result)).dump_json(result, indent=2) + b"\n")
    return 0


def _work(parsed: argparse.Namespace, console: Console) -> object:
    flags = vars(parsed)
    if parsed.stage == ADOPT:
        return _adopted(flags, console)
    if parsed.stage == COST:
        return _costed(parsed, console)
    return STAGES[parsed.stage].work(run_for(parsed, console))


def _adopted(flags: Mapping[str, Any], console: Console) -> Path:
    adoption = AdoptConfig(**_chosen(flags, _ADOPT_FIELDS))
    config = _replaced(RunConfig(name=flags.get("name", adoption.file.stem)), flags)
    return adopt(config, adoption, has_dataset="dataset" in flags, console=console)


def _costed(parsed: argparse.Namespace, console: Console) -> CostTable | CostComparison:
    """The cost of a run's network; or, with ``--input`` alone, of one that nobody has begun a run with."""
    flags = vars(parsed)
    found: CostTable | CostComparison
    if "picture" in flags:
        costs.require_place(flags["picture"])
    if "input" in flags and not flags.keys() & {"dataset", "name", "workdir"}:
        found = _estimated(flags, console)
    elif "classes" in flags:
        raise InvalidConfig("--classes: goes with --input, without --dataset, --name and --workdir")
    else:
        found = run_for(parsed, console).cost()
    if "picture" in flags:
        costs.write_picture(found, flags["picture"])
    return found


def _estimated(flags: Mapping[str, Any], console: Console) -> CostComparison:
    config = _replaced(_defaults(flags), flags)
    found = costs.compare(
        config.model,
        config.data,
        classes=flags.get("classes", IMAGENET_CLASSES),
        objective=config.objective,
        console=console,
    )
    costs.show(found, config.model, console)
    return found


def run_for(parsed: argparse.Namespace, console: Console) -> Run:
    """The run that the parsed command line asks for; its settings are in the work folder afterwards.

    Raises:
        InvalidConfig: Flags that cannot be.
    """
    flags = vars(parsed)
    defaults = _defaults(flags)
    workdir = WorkDir(flags.get("workdir", Path("runs") / defaults.name))
    resume = "resume" in flags
    if (resume or not STAGES[parsed.stage].starts_afresh) and workdir.has("config.json"):
        defaults = workdir.read("config.json", RunConfig)
    config = _replaced(defaults, _implied(parsed.stage, flags) | flags)
    workdir.write("config.json", config)
    return Run(config, workdir, console, resume=resume)


_DATA_FIELDS: Final = frozenset(DataConfig.__dataclass_fields__) - {"seed"}  # `--seed` leaves the split alone
_MODEL_FIELDS: Final = frozenset(ModelConfig.__dataclass_fields__)
_TRAIN_FIELDS: Final = frozenset(TrainConfig.__dataclass_fields__)
_QUANTIZE_FIELDS: Final = frozenset(QuantizeConfig.__dataclass_fields__)
_ADOPT_FIELDS: Final = frozenset(AdoptConfig.__dataclass_fields__)
_RUN_FIELDS: Final = frozenset({"name", "repository", "objective", "calibrate_on"})


def _defaults(flags: Mapping[str, Any]) -> RunConfig:
    return RunConfig(name=flags.get("name", flags.get("dataset", DataConfig().dataset)))


def _implied(stage: str, flags: Mapping[str, Any]) -> dict[str, Any]:
    """What follows from other flags, unless it is given itself."""
    implied: dict[str, Any] = {}
    if "weights" in flags:
        implied["epochs"] = 0  # the network is trained
    if stage == "plan":
        implied["normalization"] = "planned"  # or the plan would not be followed
    return implied


def _replaced(config: RunConfig, flags: Mapping[str, Any]) -> RunConfig:
    """``config`` with every flag that was given."""
    return replace(
        config,
        data=replace(config.data, **_chosen(flags, _DATA_FIELDS)),
        model=replace(config.model, **_chosen(flags, _MODEL_FIELDS)),
        train=replace(config.train, **_chosen(flags, _TRAIN_FIELDS)),
        quantize=replace(config.quantize, **_chosen(flags, _QUANTIZE_FIELDS)),
        **_chosen(flags, _RUN_FIELDS),
    )


def _chosen(flags: Mapping[str, Any], names: frozenset[str]) -> dict[str, Any]:
    return {name: value for name, value in flags.items() if name in names}


def _fail(error: object, code: int) -> int:
    # What others raise may have several lines, and colons around words that rich takes for pictures.
    line = "; ".join(filter(None, map(str.strip, str(error).splitlines())))
    Console(stderr=True).print(
        f"error: {line}", style="bold red", markup=False, emoji=False, highlight=False, soft_wrap=True
    )
    return code
