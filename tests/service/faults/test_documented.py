"""The table of faults names every test of this folder, and no other."""

from __future__ import annotations

import ast
import re
from pathlib import Path

TABLE = Path(__file__).parents[3] / "docs" / "reliability.md"
HERE = Path(__file__)


def test_every_fault_has_its_row_and_every_row_its_test() -> None:
    sources = [path for path in HERE.parent.glob("test_*.py") if path != HERE]
    there = {
        node.name
        for path in sources
        for node in ast.parse(path.read_text()).body
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and node.name.startswith("test_")
    }
    faults = TABLE.read_text().partition("## Faults")[2].partition("\n## ")[0]
    assert set(re.findall(r"`(test_\w+)`", faults)) == there
