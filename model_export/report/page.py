"""``report.html``: the model card, one file without anything beside it."""

from __future__ import annotations

from jinja2 import Environment, PackageLoader, StrictUndefined

from model_export.report.document import machine
from model_export.report.facts import Facts
from service.artifact import ModelMetadata


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
    return environment.get_template("card.html").render(
        facts=facts, model=metadata, digest=digest, machine=machine()
    )
