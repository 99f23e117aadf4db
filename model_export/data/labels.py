"""Labels: what the classes are called, and in which order the logits have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from model_export.errors import DataError


def read_labels(file: Path) -> tuple[str, ...]:
    """The labels in a file, one a line; empty lines at its end do not count.

    Raises:
        DataError: No such file, not UTF-8, fewer than two labels, an empty one, or one twice.
    """
    try:
        lines = [line.strip() for line in file.read_text(encoding="utf-8").rstrip().splitlines()]
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{file}: cannot be read as a list of labels ({error})") from error
    if len(lines) < 2:
        raise DataError(f"{file}: {len(lines)} label(s); one a line, at least two")
    for number, label in enumerate(lines, start=1):
        if not label:
            raise DataError(f"{file}, line {number}: an empty label")
        if label in lines[: number - 1]:
            raise DataError(f"{file}, line {number}: '{label}' is there twice")
    return tuple(lines)


def ordered_labels(
    classes: Sequence[str], given: tuple[str, ...]
) -> tuple[tuple[str, ...], NDArray[np.int64]]:
    """The labels in the order of the logits, and the position of each class among them.

    A list that has all classes in it decides their order (it may have more: a network can know classes
    that no picture shows). A list of as many other names renames the classes.

    Args:
        classes: The data set's own names, in its own order.
        given: What somebody else calls them.

    Returns:
        Labels, K; and int64 [len(classes)].

    Raises:
        DataError: The list is neither.
    """
    if set(classes) <= set(given):
        return given, np.array([given.index(name) for name in classes], np.int64)
    if len(given) == len(classes):
        return given, np.arange(len(classes))
    missing = next(name for name in classes if name not in given)
    raise DataError(
        f"--labels: {len(given)} labels for {len(classes)} classes, and no '{missing}' among them"
    )


def relabelled(targets: NDArray[np.int64], positions: NDArray[np.int64], labels: int) -> NDArray[np.int64]:
    """``targets`` for another order of the labels.

    Args:
        targets: int64 [N], old positions; or [N, old K] of 0 and 1.
        positions: New position of each old label.
        labels: New K.

    Returns:
        int64 [N], or [N, K].
    """
    if targets.ndim == 1:
        return positions[targets]
    moved = np.zeros((len(targets), labels), np.int64)
    moved[:, positions] = targets
    return moved
