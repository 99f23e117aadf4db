"""What clients did and saw, in a file that outlives them: a client that is killed loses no entry."""

from __future__ import annotations

from enum import IntEnum
from pathlib import Path
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Entries: TypeAlias = NDArray[np.int64]


class Column(IntEnum):
    """One connection's counts; a row of the books."""

    SENT = 0
    ANSWERED = 1  # with a prediction, the right one, under its own id
    REFUSED = 2  # with a problem
    LEFT = 3  # the client did not wait
    BROKEN = 4  # the client waited, and the connection ended without an answer
    WRONG = 5  # somebody else's answer


class Books:
    """The entries of every connection, shared by processes.

    Attributes:
        rows: int64 [connections, columns]; each row has one writer.
    """

    def __init__(self, path: Path, connections: int) -> None:
        shape = (connections + 1, len(Column))
        if not path.exists():
            np.zeros(shape, np.int64).tofile(path)
        whole = np.memmap(path, np.int64, "r+", shape=shape)
        self._control: Entries = whole[0]
        self.rows: Entries = whole[1:]

    @property
    def is_over(self) -> bool:
        """Whether clients are to stop."""
        return bool(self._control[0])

    def end(self) -> None:
        """Have all clients stop after the request they are at."""
        self._control[0] = 1

    def total(self, column: Column) -> int:
        """Of all connections."""
        return int(self.rows[:, column].sum())
