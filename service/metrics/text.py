"""Metrics as text, in both formats that Prometheus reads.

prometheus-client writes the same text in ten times the time, because it makes a dictionary of labels for
every bucket of every scrape. Here a series writes its labels once in its life. Tests hold the two to each
other, byte by byte.

Source: Prometheus, "Exposition formats", text format 0.0.4; OpenMetrics 1.0.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Final, Protocol, TypeAlias

from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4
from prometheus_client.openmetrics.exposition import CONTENT_TYPE_LATEST
from prometheus_client.samples import Exemplar
from prometheus_client.utils import floatToGoString

# Name, labels in braces, value, example.
Line: TypeAlias = tuple[str, str, float, Exemplar | None]
# What the older format calls what it knows no better.
_OLD_KINDS: Final = {"unknown": "untyped"}


class Exposed(Protocol):
    """A family, as far as its text is concerned."""

    @property
    def name(self) -> str:
        """Without the ``_total`` of counters."""

    @property
    def documentation(self) -> str:
        """What it tells."""

    @property
    def kind(self) -> str:
        """counter, gauge, histogram or unknown."""

    def lines(self) -> Iterable[Line]:
        """Its samples, in order."""


def render(families: Iterable[Exposed], *, openmetrics: bool) -> tuple[bytes, str]:
    """The exposition of these families, and its content type."""
    pieces = _openmetrics(families) if openmetrics else _plain(families)
    return "".join(pieces).encode(), CONTENT_TYPE_LATEST if openmetrics else CONTENT_TYPE_PLAIN_0_0_4


def labels_text(labels: Mapping[str, str]) -> str:
    """Labels in braces, by name; nothing where there are none."""
    pairs = ",".join(f'{name}="{_escaped(value)}"' for name, value in sorted(labels.items()))
    return f"{{{pairs}}}" if pairs else ""


def _plain(families: Iterable[Exposed]) -> Iterator[str]:
    for family in families:
        name = f"{family.name}_total" if family.kind == "counter" else family.name
        documentation = family.documentation.replace("\\", r"\\").replace("\n", r"\n")
        yield f"# HELP {name} {documentation}\n# TYPE {name} {_OLD_KINDS.get(family.kind, family.kind)}\n"
        for sample, labels, value, _ in family.lines():
            yield f"{sample}{labels} {_number(value)}\n"


def _openmetrics(families: Iterable[Exposed]) -> Iterator[str]:
    for family in families:
        yield f"# HELP {family.name} {_escaped(family.documentation)}\n# TYPE {family.name} {family.kind}\n"
        for sample, labels, value, exemplar in family.lines():
            example = "" if exemplar is None else _example(exemplar)
            yield f"{sample}{labels} {_number(value)}{example}\n"
    yield "# EOF\n"


def _example(exemplar: Exemplar) -> str:
    labels = labels_text(exemplar.labels)
    return f" # {labels} {_number(exemplar.value)} {exemplar.timestamp}"


def _number(value: float) -> str:
    text: str = floatToGoString(value)  # type: ignore[no-untyped-call]  # prometheus_client does not annotate it
    return text


def _escaped(text: str) -> str:
    return text.replace("\\", r"\\").replace("\n", r"\n").replace('"', r"\"")
