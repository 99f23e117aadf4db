"""A version of a model: its files of all precisions and its report, published together."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

from rich.console import Console

from model_export import export, report
from model_export.config import RunConfig
from model_export.pipeline import metadata
from model_export.pipeline.publication import publish
from service.artifact import Precision


def publish_version(folder: Path, config: RunConfig, facts: report.Facts, console: Console) -> Path:
    """Publishes the proven files in ``folder`` as the next version; each replays its self-test once more.

    Args:
        folder: Holds ``model.onnx``, and those of other precisions if there are any.
        config: Name and repository.
        facts: For the report.
        console: Where it is said what was published.

    Returns:
        The version's folder.

    Raises:
        PublishFailed: The repository could not take it.
        VerificationFailed: A file does not give the logits of its own self-test.
    """
    files = [
        export.read_model_file(folder / precision.file_name)
        for precision in Precision
        if precision is Precision.FP32 or (folder / precision.file_name).is_file()
    ]

    def write(target: Path, version: int) -> None:
        update = {"version": str(version), "created_at": datetime.now(UTC)}
        numbered = [(graph, each.model_copy(update=update)) for graph, each in files]
        digests = [metadata.write_and_replay(graph, each, target) for graph, each in numbered]
        report.write(facts, numbered[0][1], digests[0], target)

    published = publish(config.repository, config.name, write)
    console.print(f"published [bold]{published}[/]", soft_wrap=True)
    return published
