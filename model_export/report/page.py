"""``report.html``: the model card, one file without anything beside it."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jinja2 import Environment, PackageLoader, StrictUndefined

from model_export.records import CostTable, TrainingHistory
from model_export.report import charts
from model_export.report.charts import Series
from model_export.report.document import machine
from model_export.report.facts import Facts
from model_export.report.reproduction import command
from service.artifact import ModelMetadata, Task

LARGEST_MATRIX = 40  # labels; a confusion matrix of more cannot be read
COSTLIEST = 12  # layers that the cost chart names
SAMPLE_ANSWERS = 3  # labels under each sample picture


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
    return environment.get_template("card.html").render(
        facts=facts,
        model=metadata,
        digest=digest,
        machine=machine(),
        command=command(facts.config, facts.adoption),
        curves=_curves(facts.history),
        samples=_samples(metadata),
        costliest=_costliest(facts.folded_cost),
        slowest=sorted(facts.times, key=lambda each: -each.seconds)[:COSTLIEST],
        shows_matrix=len(metadata.labels) <= LARGEST_MATRIX,
        charts=charts,
    )


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


def _costliest(table: CostTable | None) -> list[tuple[str, str, int, float]]:
    """Name, operator, MACs and share of the layers with most MACs, in the order of the network."""
    if table is None or table.macs == 0:
        return []
    threshold = sorted((layer.macs for layer in table.layers), reverse=True)[:COSTLIEST][-1]
    chosen = [layer for layer in table.layers if layer.macs >= max(1, threshold)]
    return [(each.name, each.operator, each.macs, each.macs / table.macs) for each in chosen[:COSTLIEST]]
