"""``python -m benchmarks.runs``: one whole ``run`` for each of three data sets, as ``docs/runs.md``.

::

    digits, MNIST, CIFAR-10 ─▶ python -m model_export run …, a process of its own ─▶ its report.json
        ─▶ accuracy, cost, time and the other precisions, as a table

A run that has published is not done again, and one that was interrupted goes on from its last epoch. So the
command may be stopped at any moment and started again. MNIST and CIFAR-10 lie in ``--data-dir``, by default
``TEST_DATA_DIR``, as ``mnist/`` (four IDX files) and ``cifar10/`` (batches, or a tar of class folders).
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shlex
import subprocess
import sys
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from benchmarks.page import add_flag, deliver
from model_export.records import SpeedUp

HEAD = """# A run for each of three data sets

What `python -m model_export run` makes of the digits, of MNIST and of CIFAR-10: trained, calibrated, folded,
exported, proven, quantized and published, by one command each. Accuracies are of held-back pictures that
nothing was chosen by.

Made by `make bench-runs` with torch {torch} on {threads} thread(s) of {cpus} shared CPUs.

"""


@dataclass(frozen=True, slots=True)
class Case:
    """One run.

    Attributes:
        dataset: Which, and what the model is called.
        words: The rest of the command line.
    """

    dataset: str
    words: str = ""

    def command(self, data_dir: str | None) -> list[str]:
        """The command line behind ``python``.

        Args:
            data_dir: Holds a folder for each data set; None: the data set needs none.
        """
        place = [] if data_dir is None else ["--data-dir", f"{data_dir}/{self.dataset}"]
        words = ["-m", "model_export", "run", "--dataset", self.dataset, *place, *shlex.split(self.words)]
        return [*words, "--precisions", "int8,fp16"]


CASES = (
    Case("digits"),
    Case("mnist", "--schedule cosine"),
    Case(
        "cifar10",
        "--architecture cifar_resnet20 --epochs 12 --optimizer sgd --learning-rate 0.1 --batch-size 128 "
        "--schedule cosine --warmup-epochs 1 --augmentation shift_flip --weight-decay 5e-4",
    ),
)
WITHOUT_FILES = ("digits",)  # scikit-learn carries them


def made(case: Case, data_dir: str | None, folder: Path) -> dict[str, Any]:
    """The report of a case: of the run that has published, or of one that is done now.

    Args:
        case: Which.
        data_dir: As for `Case.command`.
        folder: Where runs are kept, each in a folder of its own settings.

    Raises:
        subprocess.CalledProcessError: The run failed; what it said stands in the terminal.
    """
    command = case.command(data_dir)
    home = folder / f"{case.dataset}-{hashlib.sha256(shlex.join(command).encode()).hexdigest()[:8]}"
    report = home / "models" / case.dataset / "1" / "report.json"
    if not report.is_file():
        places = ["--workdir", str(home / "run"), "--repository", str(home / "models")]
        subprocess.run([sys.executable, *command, *places, "--resume"], check=True)
    found: dict[str, Any] = json.loads(report.read_bytes())
    return found


def page(reports: Iterable[tuple[Case, dict[str, Any]]]) -> str:
    """The markdown page: what was run, how right it is, what it costs, what other precisions bring."""
    cases = list(reports)
    head = HEAD.format(torch=torch.__version__, threads=torch.get_num_threads(), cpus=os.cpu_count())
    blocks = ["```sh"]
    for case, _ in cases:
        place = None if case.dataset in WITHOUT_FILES else "DIR"
        blocks.append(f"python {shlex.join(case.command(place))}")
    answers = _table(
        ("data", "network", "held back", "float32", "int8", "fp16", "training", "proofs"),
        (_answers(case, report) for case, report in cases),
    )
    costs = _table(
        ("data", "parameters", "multiply-adds", "bytes moved", "of them by BatchNorms", "µs a picture"),
        (_costs(case, report) for case, report in cases),
    )
    precisions = _table(
        ("data", "precision", "file", "in float", "speed beside float32, batches of 8"),
        (row for case, report in cases for row in _precisions(case, report)),
    )
    notes = (
        ("## How right, after how long", answers),
        ("## What a picture costs, before → after the fold", costs),
        ("## Other precisions, on this CPU", precisions),
    )
    body = "\n\n".join(f"{title}\n\n{table}" for title, table in notes)
    return head + "\n".join(blocks) + f"\n```\n\n{body}\n"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (heads, ["---"] * len(heads), *rows))


def _answers(case: Case, report: dict[str, Any]) -> tuple[str, ...]:
    (served,) = (each for each in report["verification"]["accuracy"] if each["form"] == "onnx")
    epochs = report["training"]
    seconds = sum(epoch["seconds"] for epoch in epochs)
    proofs = [report["verification"], *(each["verification"] for each in report["precisions"])]
    return (
        case.dataset,
        report["model"]["architecture"],
        f"{served['instances']:,}",
        _percent(served["value"]),
        *(_percent(each["verification"]["accuracy"][0]["value"]) for each in report["precisions"]),
        f"{len(epochs)} epochs, {seconds:.0f} s",
        f"{sum(len(proof['checks']) for proof in proofs)} passed",
    )


def _costs(case: Case, report: dict[str, Any]) -> tuple[str, ...]:
    before, after = report["cost"]["before"], report["cost"]["after"]
    after_seconds: float = sum(each["seconds"] for each in report["times"])
    return (
        case.dataset,
        f"{before['parameters']:,} → {after['parameters']:,}",
        f"{after['macs']:,}",
        f"{before['moved_bytes']:,} → {after['moved_bytes']:,}",
        f"{before['batch_norm_share']:.1%} → {after['batch_norm_share']:.1%}",
        f"{1e6 * before['seconds']:.0f} → {1e6 * after_seconds:.0f}",
    )


def _precisions(case: Case, report: dict[str, Any]) -> Iterable[tuple[str, ...]]:
    for each in report["precisions"]:
        yield (
            case.dataset,
            each["made"]["precision"],
            f"{each['bytes'] / each['float_bytes']:.0%} of {each['float_bytes']:,} bytes",
            ", ".join(each["made"]["kept"]) or "nothing",
            str(SpeedUp(**each["speed_up"])),
        )


def _percent(value: float) -> str:
    return f"{100 * value:.2f} %"


def main(arguments: Sequence[str] | None = None) -> None:
    """Does the runs that are missing, then writes or prints the page.

    Args:
        arguments: Without the program's name; None: those of the process.
    """
    names = [case.dataset for case in CASES]
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks.runs", description="A whole run for each of three data sets, as a page."
    )
    parser.add_argument(
        "datasets", nargs="*", metavar="DATA", help=f"of {', '.join(names)}; all when none is given"
    )
    parser.add_argument(
        "--data-dir", default=os.environ.get("TEST_DATA_DIR"), help="holds mnist/ and cifar10/"
    )
    parser.add_argument("--folder", type=Path, default=Path("reports/runs"), help="where runs are kept")
    add_flag(parser)
    parsed = parser.parse_args(arguments)
    if unknown := set(parsed.datasets) - set(names):
        parser.error(f"no data set {', '.join(sorted(unknown))}; there are {', '.join(names)}")
    chosen = [case for case in CASES if case.dataset in (parsed.datasets or names)]
    if parsed.data_dir is None and {case.dataset for case in chosen} - set(WITHOUT_FILES):
        parser.error("name the folder that holds mnist/ and cifar10/ with --data-dir, or in TEST_DATA_DIR")
    reports = []
    for case in chosen:
        Console().rule(case.dataset)
        place = None if case.dataset in WITHOUT_FILES else parsed.data_dir
        reports.append((case, made(case, place, parsed.folder)))
    text = page(reports)
    deliver(text, parsed.write)


if __name__ == "__main__":
    main()
