"""The tables that end ``docs/images.md``, from the corpus: ``python -m tests.service.images.catalogue``."""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator

from tests.service.images.corpus import specimens
from tests.service.images.damage import damaged


def catalogue() -> str:
    """Every picture tried: those that are right, those that are refused with what is said of them."""
    return "\n".join((*_accepted(), "", *_refused(), ""))


def _accepted() -> Iterator[str]:
    kinds: dict[str, dict[str, None]] = {}
    for specimen in specimens():
        kind = specimen.name.removeprefix(specimen.format).strip("-").replace("-", " ") or "plain"
        plain_kind = re.sub(r"(long orientation|orientation|filter|sampling) \d", r"every \1", kind)
        kinds.setdefault(specimen.format, {})[plain_kind] = None
    yield f"{len(specimens())} pictures of these kinds are decoded to the pixels they were made from:"
    yield from ("", "| format | kinds |", "| --- | --- |")
    for name, of_format in sorted(kinds.items()):
        yield f"| {name} | {', '.join(of_format)} |"


def _refused() -> Iterator[str]:
    yield f"{len(damaged())} damaged or hostile pictures are refused as `undecodable_image`, with the cause:"
    yield from ("", "| picture | in the detail |", "| --- | --- |")
    for damage in sorted(damaged(), key=lambda damage: damage.name):
        yield f"| {damage.name} | {damage.detail} |"


if __name__ == "__main__":
    sys.stdout.write(catalogue())
