"""``python -m benchmarks.planning``: planned normalisation against the article's, as ``docs/planning.md``.

::

    digits, MNIST, CIFAR-10 × article, planned × seeds ─▶ the stages plan, train, calibrate of a real run
        ─▶ held-back accuracy as trained and calibrated, one file a run ─▶ the page

A run that is finished is not done again, and one that was interrupted goes on from its last epoch. So the
command may be stopped at any moment and started again. MNIST and CIFAR-10 lie in ``TEST_DATA_DIR``, as
``mnist/`` (four IDX files) and ``cifar10/`` (batches, or a tar of class folders).
"""

from __future__ import annotations

import argparse
import os
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from statistics import mean
from typing import get_args

import torch
from pydantic import TypeAdapter
from rich.console import Console

from benchmarks.page import add_flag, deliver
from model_export.config import DataConfig, DatasetName, Normalization, RunConfig, TrainConfig
from model_export.evaluation import accuracy
from model_export.pipeline import Run, WorkDir

SEEDS = (0, 1, 2)
# Few enough that the two still differ: MNIST is near its ceiling after two.
EPOCHS: dict[DatasetName, int] = {"digits": 10, "mnist": 2, "cifar10": 6}
HOW = ("", ", calibrated")
NORMALIZATIONS: tuple[Normalization, ...] = get_args(Normalization)

HEAD = """# Planned normalisation against the article's

Held-back accuracy of `article_cnn`, Adam at 0.001, batches of 64, with the article's BatchNorms (behind the
activation, momentum 0.99, ε 0.001) and with those that `--normalization planned` decides on. Each figure is
the mean of {seeds} seeds, and their range. *Calibrated*: running statistics estimated anew after training,
as `run` does it for both.

Made by `make bench-planning` with torch {torch} on {threads} thread(s).
"""


@dataclass(frozen=True, slots=True)
class Trial:
    """One training to be compared."""

    dataset: DatasetName
    normalization: Normalization
    seed: int
    epochs: int

    @property
    def name(self) -> str:
        """Of its work folder."""
        return f"{self.dataset}-{self.epochs}-{self.normalization}-{self.seed}"


@dataclass(frozen=True, slots=True)
class Outcome:
    """Held-back accuracy of one trial.

    Attributes:
        trial: Which.
        pictures: Held back.
        trained: With the running statistics that training left.
        calibrated: With those that `run` would publish.
    """

    trial: Trial
    pictures: int
    trained: float
    calibrated: float


def config_for(trial: Trial, data_dir: Path | None, *, limit: int | None = None) -> RunConfig:
    """The run of a trial.

    Args:
        trial: Which.
        data_dir: Holds ``mnist`` and ``cifar10``; the digits need none.
        limit: At most so many training pictures.
    """
    folder = None if trial.dataset == "digits" or data_dir is None else data_dir / trial.dataset
    return RunConfig(
        name=trial.name,
        data=DataConfig(trial.dataset, folder, limit=limit),
        train=TrainConfig(epochs=trial.epochs, seed=trial.seed, normalization=trial.normalization),
    )


def measure(trial: Trial, config: RunConfig, folder: Path, console: Console) -> Outcome:
    """The trial's outcome: from its file, or by training.

    Args:
        trial: Which.
        config: Its run.
        folder: Where work folders are; a training that was interrupted there goes on.
        console: Where progress is shown.
    """
    file = folder / f"{trial.name}.json"
    outcomes = TypeAdapter(Outcome)
    if file.is_file():
        return outcomes.validate_json(file.read_bytes())
    run = Run(config, WorkDir(folder / trial.name), console, resume=True)
    if trial.normalization == "planned" and not run.workdir.has("plan.json"):
        run.plan()
    run.train()
    trained = accuracy(run.network(), run.dataset, "test", name="trained").value
    run.calibrate()
    calibrated = accuracy(run.network(), run.dataset, "test", name="calibrated").value
    outcome = Outcome(trial, len(run.dataset.test), trained, calibrated)
    file.write_bytes(outcomes.dump_json(outcome, indent=2))
    return outcome


def page(outcomes: Sequence[Outcome]) -> str:
    """The markdown page: a table, and what it says."""
    seeds = {outcome.trial.seed for outcome in outcomes}
    head = HEAD.format(seeds=len(seeds), torch=torch.__version__, threads=torch.get_num_threads())
    heads = ("data", "epochs", "held back", *(f"{each}{how}" for each in NORMALIZATIONS for how in HOW))
    lines = [_row(heads), _row(["---"] * len(heads))]
    verdicts = []
    for dataset in dict.fromkeys(outcome.trial.dataset for outcome in outcomes):
        article, planned = (_of(outcomes, dataset, normalization) for normalization in NORMALIZATIONS)
        cells = [_spread(each, by) for each in (article, planned) for by in (_trained, _calibrated)]
        first = article[0]
        lines.append(_row([dataset, str(first.trial.epochs), f"{first.pictures:,}", *cells]))
        verdicts.append(f"- {dataset}: {_verdict(article, planned)}")
    tail = "Planned minus article, calibrated, seed by seed:"
    return "\n".join([head, *lines, "", tail, "", *verdicts, ""])


def _row(cells: Iterable[str]) -> str:
    return f"| {' | '.join(cells)} |"


def _of(outcomes: Iterable[Outcome], dataset: DatasetName, normalization: Normalization) -> list[Outcome]:
    found = [each for each in outcomes if each.trial.dataset == dataset]
    return sorted(
        (each for each in found if each.trial.normalization == normalization),
        key=lambda each: each.trial.seed,
    )


def _trained(outcome: Outcome) -> float:
    return outcome.trained


def _calibrated(outcome: Outcome) -> float:
    return outcome.calibrated


def _spread(outcomes: Sequence[Outcome], by: Callable[[Outcome], float]) -> str:
    values = [100 * by(outcome) for outcome in outcomes]
    return f"{mean(values):.2f} % ({min(values):.2f} – {max(values):.2f})"


def _verdict(article: Sequence[Outcome], planned: Sequence[Outcome]) -> str:
    """The differences of the pairs, and who is ahead."""
    differences = [
        100 * (with_plan.calibrated - without.calibrated)
        for without, with_plan in zip(article, planned, strict=True)
    ]
    points = ", ".join(f"{difference:+.2f}" for difference in differences)
    if min(differences) >= 0:
        verdict = "planned is at least as good with every seed"
    elif max(differences) <= 0:
        verdict = "the article's is at least as good with every seed"
    else:
        verdict = f"the seeds disagree; on average planned has {mean(differences):+.2f}"
    return f"{points} points: {verdict}."


def main(arguments: Sequence[str] | None = None) -> None:
    """Measures what is missing, then writes or prints the page.

    Args:
        arguments: Without the program's name; None: those of the process.
    """
    parser = argparse.ArgumentParser(prog="python -m benchmarks.planning", description=__doc__)
    parser.add_argument("datasets", nargs="*", help="some of them; all three when none is given")
    parser.add_argument("--folder", type=Path, default=Path("reports/planning"), help="where runs are kept")
    add_flag(parser)
    parsed = parser.parse_args(arguments)
    chosen = [dataset for dataset in EPOCHS if dataset in (parsed.datasets or EPOCHS)]
    place = os.environ.get("TEST_DATA_DIR")
    if place is None and set(chosen) != {"digits"}:
        parser.error("TEST_DATA_DIR is not set: name the folder that holds mnist/ and cifar10/")
    console = Console()
    outcomes = []
    for dataset, seed, normalization in product(chosen, SEEDS, NORMALIZATIONS):
        trial = Trial(dataset, normalization, seed, EPOCHS[dataset])
        console.rule(trial.name)
        config = config_for(trial, Path(place) if place else None)
        outcomes.append(measure(trial, config, parsed.folder, console))
    text = page(outcomes)
    deliver(text, parsed.write)


if __name__ == "__main__":
    main()
