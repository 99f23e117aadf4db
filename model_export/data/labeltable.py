"""Pictures with any number of labels each, told by a table that lies with them.

::

    labels.csv      file,labels
                    beach/01.jpg,sea;sand
                    02.jpg,

Names are relative to the table's own folder. A picture may have no label at all; one that the table
does not name is left out. The splits are divided by the seed.
"""

from __future__ import annotations

import csv
import io
from typing import Final

import numpy as np

from model_export.data.archive import Archive
from model_export.data.layout import Layout, Listing
from model_export.errors import DataError

TABLE: Final = "labels.csv"
HEADER: Final = ["file", "labels"]
SEPARATOR: Final = ";"


def find_table(archive: Archive) -> str | None:
    """The name of the table in ``archive``, the outermost if there are several; None: there is none."""
    tables = [name for name in archive.names if name.split("/")[-1] == TABLE]
    return min(tables, key=lambda name: name.count("/"), default=None)


def read_table(archive: Archive, table: str) -> Layout:
    """What the table tells.

    Raises:
        DataError: It is no such table, names a picture that is not there or the same one twice, or knows
            fewer than two labels; the message names the line.
    """
    where = archive.locate(table)
    rows = _rows(archive, table, where)
    folder = table.removesuffix(TABLE)
    labels_of: dict[str, set[str]] = {}
    present = set(archive.names)
    for line, row in enumerate(rows, start=2):
        if len(row) != len(HEADER):
            raise DataError(f"{where}, line {line}: {len(row)} columns, not the two of {','.join(HEADER)}")
        name = folder + row[0]
        if name not in present:
            raise DataError(f"{where}, line {line}: no picture {row[0]}")
        if name in labels_of:
            raise DataError(f"{where}, line {line}: {row[0]} is there twice")
        labels_of[name] = {label.strip() for label in row[1].split(SEPARATOR)} - {""}
    classes = tuple(sorted(set().union(*labels_of.values())))
    if len(classes) < 2:
        raise DataError(f"{where}: {len(classes)} label(s); at least two")
    names = tuple(sorted(labels_of))
    targets = np.array([[label in labels_of[name] for label in classes] for name in names], np.int64)
    return Layout(classes, Listing(names, targets))


def _rows(archive: Archive, table: str, where: str) -> list[list[str]]:
    ((_, content),) = archive.read([table])
    try:
        header, *rows = csv.reader(io.StringIO(content.decode("utf-8-sig"), newline=""))
    except (UnicodeDecodeError, csv.Error, ValueError) as error:
        raise DataError(f"{where}: not a table in UTF-8 ({error})") from error
    if header != HEADER:
        raise DataError(f"{where}: its first line is not {','.join(HEADER)}")
    return [row for row in rows if row]
