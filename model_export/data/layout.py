"""What a folder or tar file of pictures holds, known before any picture is decoded."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True, slots=True, eq=False)
class Listing:
    """The files of one split and what is right for each.

    Attributes:
        names: In the archive, sorted.
        targets: int64 [N], positions in the layout's classes; multi-label: [N, K] of 0 and 1.
    """

    names: tuple[str, ...]
    targets: NDArray[np.int64]

    def take(self, positions: NDArray[np.intp]) -> Listing:
        """The files at ``positions``, in that order."""
        return Listing(tuple(self.names[position] for position in positions), self.targets[positions])


@dataclass(frozen=True, slots=True, eq=False)
class Layout:
    """Either ``train`` and ``test`` (and maybe ``validation``), or only ``train``, to be divided.

    Attributes:
        classes: Their names, sorted.
        train: What is learnt from.
        validation: None: to be taken from ``train``.
        test: None: likewise.
    """

    classes: tuple[str, ...]
    train: Listing
    validation: Listing | None = None
    test: Listing | None = None
