"""The model card: ``report.json`` for machines, ``report.html`` for people, the same facts in both.

Source: M. Mitchell et al., Model Cards for Model Reporting, 2019: what the model is, how it was made,
what it was measured on, what it must not be used for.
"""

from __future__ import annotations

from pathlib import Path

from model_export.report.costs import cost_picture
from model_export.report.document import document_json
from model_export.report.facts import Facts
from model_export.report.page import page
from service.artifact import ModelMetadata

__all__ = ["Facts", "cost_picture", "document_json", "page", "write"]


def write(facts: Facts, metadata: ModelMetadata, digest: str, folder: Path) -> None:
    """Writes ``report.json`` and ``report.html`` beside a model file.

    Args:
        facts: What the stages found.
        metadata: What the file says about itself.
        digest: The file's sha256.
        folder: The version's folder.
    """
    (folder / "report.json").write_bytes(document_json(facts, metadata, digest))
    (folder / "report.html").write_text(page(facts, metadata, digest), encoding="utf-8")
