"""The default model, made once and served for all tests of the road."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.e2e.road import Exported, Served, export, serve


@pytest.fixture(scope="session")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Exported:
    return export(tmp_path_factory.mktemp("digits"), "digits")


@pytest.fixture(scope="session")
def served(exported: Exported) -> Iterator[Served]:
    with serve(exported.repository) as running:
        yield running
