"""Results on disk as they come, so that a long measurement can be stopped and gone on with.

::

    {"digest": "…"}                                      of everything the results depend on
    {"tool": "onnxsim", "network": "conv2d", …}          one line a result

A journal of other sources or of other versions is not gone on with: it is begun anew.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import asdict
from hashlib import sha256
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Generic, TypeVar

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

R = TypeVar("R", bound="DataclassInstance")


class Journal(Generic[R]):
    """The results so far, in a file.

    Args:
        path: The file; made if it is not there.
        digest: What its results depend on.
        kind: Their class, a dataclass of plain numbers and strings.
    """

    def __init__(self, path: Path, digest: str, kind: type[R]) -> None:
        self._path, self._lock = path, Lock()
        self.results = [kind(**json.loads(line)) for line in _lines(path, digest)]
        path.parent.mkdir(parents=True, exist_ok=True)
        # Written again as a whole: a line that was cut off in the middle is gone.
        lines = [{"digest": digest}, *map(asdict, self.results)]
        path.write_text("".join(f"{json.dumps(line)}\n" for line in lines), encoding="utf-8")

    def add(self, result: R) -> None:
        """Write one more; from any thread."""
        with self._lock, self._path.open("a", encoding="utf-8") as file:
            file.write(f"{json.dumps(asdict(result))}\n")
            self.results.append(result)


def _lines(path: Path, digest: str) -> list[str]:
    if not path.exists():
        return []
    header, *lines = path.read_text(encoding="utf-8").split("\n")
    return lines[:-1] if header == json.dumps({"digest": digest}) else []  # the last one has no end


def digest_of(folders: Iterable[Path], versions: Iterable[str]) -> str:
    """Of every Python file in these folders, and of these versions."""
    content = sha256("\n".join(versions).encode())
    for path in sorted(path for folder in folders for path in folder.rglob("*.py")):
        content.update(path.read_bytes())
    return content.hexdigest()
