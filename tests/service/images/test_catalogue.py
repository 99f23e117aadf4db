"""The documentation and the seeds come from the corpus that the tests use."""

from __future__ import annotations

from pathlib import Path

from service.images import FORMATS, DecodeLimits
from tests.service.images.catalogue import catalogue
from tests.service.images.corpus import specimens
from tests.service.images.damage import damaged
from tests.service.images.seeds import seeds, write_seeds

DOCUMENT = Path(__file__).parents[3] / "docs" / "images.md"


def test_the_document_ends_with_what_was_tried() -> None:
    text = DOCUMENT.read_text()
    assert text.endswith(catalogue()), "write its end anew: python -m tests.service.images.catalogue"


def test_the_document_states_every_format_and_the_default_limit() -> None:
    text = DOCUMENT.read_text()
    table = text.partition("## Formats")[2].partition("\n\n`FOLDSERVE")[0].lower()
    assert all(f"| {name} |" in table for name in FORMATS)
    assert f"{DecodeLimits().max_pixels // 1_000_000} million" in text


def test_every_seed_is_a_file_of_its_own(tmp_path: Path) -> None:
    assert write_seeds(tmp_path) == len(specimens()) + len(damaged()) == len(list(tmp_path.iterdir()))
    assert all((tmp_path / name).read_bytes() == data for name, data in seeds().items())
