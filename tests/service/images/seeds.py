"""``python -m tests.service.images.seeds FOLDER``: every picture of the corpus as a file, good and damaged.

A coverage-guided fuzzer starts from them; so can anyone who wants to try another decoder.
"""

from __future__ import annotations

import re
import sys
from pathlib import Path

from tests.service.images.corpus import specimens
from tests.service.images.damage import damaged


def seeds() -> dict[str, bytes]:
    """File name → content."""
    good = {f"good-{specimen.name}": specimen.data for specimen in specimens()}
    bad = {f"bad-{re.sub(r'[^a-z0-9]+', '-', damage.name.lower())}": damage.data for damage in damaged()}
    return good | bad


def write_seeds(folder: Path) -> int:
    """Writes them all; how many."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, data in seeds().items():
        (folder / name).write_bytes(data)
    return len(seeds())


if __name__ == "__main__":
    sys.stdout.write(f"{write_seeds(Path(sys.argv[1]))} seeds in {sys.argv[1]}\n")
