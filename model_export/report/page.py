"""``report.html``: the model card, one file without anything beside it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from model_export.records import CostTable, LayerCost, TrainingHistory
from model_export.report import charts
from model_export.report.charts import Series
from model_export.report.costs import byte_shares, macs_shares, time_shares
from model_export.report.document import machine
from model_export.report.facts import Facts
from model_export.report.reproduction import command
from service.artifact import ModelMetadata, Task

LARGEST_MATRIX = 40  # labels; a confusion matrix of more cannot be read
SAMPLE_ANSWERS = 3  # labels under each sample picture
SPLIT_USES = {
    "train": "learning the weights",
    "validation": "choices: when to stop, which statistics, which layers stay in float",
    "test": "held back: only measured on",
}
ADOPTED_USES = SPLIT_USES | {
    "train": "ranges of other precisions",
    "validation": "choices: which layers of other precisions stay in float",
}


@dataclass(frozen=True, slots=True)
class Sample:
    """A self-test picture and what the file says about it."""

    source: str  # data URI
    answers: tuple[tuple[str, float], ...]


def page(facts: Facts, metadata: ModelMetadata, digest: str) -> str:
    """The whole model card as HTML.

    Args:
        facts: What the stages found.
        metadata: What the file says about itself.
        digest: The model file's sha256.
    """
    environment = Environment(
        loader=PackageLoader("model_export.report", "templates"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["grouped"] = "{:,}".format
    environment.filters["percent"] = "{:.2%}".format
    environment.filters["tenths"] = "{:.1%}".format
    return environment.get_template("card.html").render(
        facts=facts,
        model=metadata,
        digest=digest,
        machine=machine(),
        command=command(facts.config, facts.adoption),
        curves=_curves(facts.history),
        samples=_samples(metadata),
        costliest=macs_shares(facts.folded_cost),
        heaviest=byte_shares(facts.cost),
        slowest=time_shares(facts.times),
        seconds=sum(each.seconds for each in facts.times),
        # Every name in it was escaped where it was drawn.
        fold_picture=Markup(facts.fold_picture or ""),  # noqa: S704 - see above
        shows_matrix=len(metadata.labels) <= LARGEST_MATRIX,
        unknown=sorted({layer.operator for layer in _layers(facts.cost) if not layer.known}),
        uses=SPLIT_USES if facts.adoption is None else ADOPTED_USES,
        grouped="{:,}".format,
        microseconds=lambda seconds: f"{1e6 * seconds:,.1f}",
        charts=charts,
        zip=zip,
    )


def _layers(table: CostTable | None) -> tuple[LayerCost, ...]:
    return () if table is None else table.layers


def _curves(history: TrainingHistory) -> list[tuple[str, str]]:
    """Titles and charts of the training; none where there was none."""
    epochs = history.epochs
    if not epochs:
        return []
    loss = (
        Series("training", tuple(epoch.train_loss for epoch in epochs)),
        Series("validation", tuple(epoch.validation_loss for epoch in epochs)),
    )
    accuracy = (
        Series("training", tuple(epoch.train_accuracy for epoch in epochs)),
        Series("validation", tuple(epoch.validation_accuracy for epoch in epochs)),
    )
    return [
        ("Loss", charts.line_chart(loss, label="loss by epoch")),
        ("Accuracy", charts.line_chart(accuracy, label="accuracy by epoch", is_share=True)),
    ]


def _samples(metadata: ModelMetadata) -> list[Sample]:
    return [
        Sample(
            f"data:{instance.media_type};base64,{base64.b64encode(instance.image).decode()}",
            _answers(instance.logits, metadata),
        )
        for instance in metadata.selftest.instances
    ]


def _answers(logits: Sequence[float], metadata: ModelMetadata) -> tuple[tuple[str, float], ...]:
    row = np.asarray(logits)
    if metadata.task is Task.MULTILABEL:
        chances = 1 / (1 + np.exp(-row))
    else:
        chances = np.exp(row - row.max())
        chances /= chances.sum()
    best = np.argsort(-chances)[:SAMPLE_ANSWERS]
    return tuple((metadata.labels[index], float(chances[index])) for index in best)
