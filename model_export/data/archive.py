"""A folder or a tar file, seen alike: named files, read in the order in which they are stored."""

from __future__ import annotations

import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path

from model_export.errors import DataError


class Archive:
    """The files under a folder or in a tar file (compressed or not). Open: use it in ``with``.

    Hidden files and what macOS puts into archives are left out.

    Args:
        path: Folder or tar file.

    Attributes:
        names: Relative, with ``/``; sorted, so nothing depends on how they are stored.
        folders: Likewise; a tar file may leave them out.

    Raises:
        DataError: No such file, or neither a folder nor a tar file.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._tar = None if path.is_dir() else _open_tar(path)
        self._stored = self._list()
        self.names = tuple(sorted(self._stored))
        self.folders = tuple(sorted(filter(_is_shown, self._list_folders())))

    def __enter__(self) -> Archive:
        return self

    def __exit__(self, *_: object) -> None:
        if self._tar is not None:
            self._tar.close()

    def read(self, names: Iterable[str]) -> Iterator[tuple[str, bytes]]:
        """Each of ``names`` with its content, in stored order: a compressed tar is read forwards only."""
        wanted = set(names)
        for name in self._stored:
            if name in wanted:
                yield name, self._content(name)

    def locate(self, name: str) -> str:
        """Where a file is, for a message."""
        return str(self.path / name) if self._tar is None else f"{self.path}: {name}"

    def _list(self) -> dict[str, tarfile.TarInfo | Path]:
        if self._tar is None:
            found: dict[str, tarfile.TarInfo | Path] = {
                file.relative_to(self.path).as_posix(): file
                for file in sorted(self.path.rglob("*"))
                if file.is_file()
            }
        else:
            try:
                found = {member.name.removeprefix("./"): member for member in self._tar if member.isfile()}
            except (tarfile.TarError, EOFError, OSError) as error:
                raise DataError(f"{self.path}: damaged tar file ({error})") from error
        return {name: entry for name, entry in found.items() if _is_shown(name)}

    def _list_folders(self) -> list[str]:
        if self._tar is None:
            return [each.relative_to(self.path).as_posix() for each in self.path.rglob("*") if each.is_dir()]
        return [member.name.removeprefix("./") for member in self._tar.getmembers() if member.isdir()]

    def _content(self, name: str) -> bytes:
        entry = self._stored[name]
        try:
            if isinstance(entry, Path):
                return entry.read_bytes()
            opened = self._tar.extractfile(entry) if self._tar else None
            return opened.read() if opened else b""
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DataError(f"{self.locate(name)}: cannot be read ({error})") from error


def find_archive(path: Path) -> Path:
    """``path`` itself, or the tar file in it if that is all there is in the folder."""
    entries = [entry for entry in path.iterdir() if _is_shown(entry.name)] if path.is_dir() else []
    if len(entries) == 1 and entries[0].is_file() and tarfile.is_tarfile(entries[0]):
        return entries[0]
    return path


def _open_tar(path: Path) -> tarfile.TarFile:
    try:
        return tarfile.open(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: no such file or folder") from error
    except PermissionError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror})") from error
    except (tarfile.TarError, OSError, EOFError) as error:
        # Its own message lists every compression that was tried.
        raise DataError(f"{path}: neither a folder nor a tar file") from error


def _is_shown(name: str) -> bool:
    return not any(part.startswith(".") or part == "__MACOSX" for part in name.split("/"))
