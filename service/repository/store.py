"""A repository that lies elsewhere (S3, GCS, Azure, HTTP), as folders, files and what tells a change.

::

    s3:// gs:// az://     obstore's file systems        s3s keys, endpoints and regions: its own variables
    http:// https://      fsspec's: folders are the pages that servers make of them; nothing is written
    file:// memory://     fsspec's: for a mounted share, and for tests

fsspec and what it needs (the extra ``remote``) are imported when a store is made, by nobody else. Every way
in which they can fail leaves this module as `RemoteUnavailable`.

Source: the fsspec specification, https://filesystem-spec.readthedocs.io (AbstractFileSystem).
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from types import MappingProxyType
from typing import Final, Protocol, TypeAlias, cast
from urllib.parse import unquote

from service.errors import InvalidConfiguration, RemoteUnavailable

# Without an answer for so long, the remote counts as gone; each look tries anew.
_CONNECT_S: Final = 5
_READ_S: Final = 30
_RETRIES: Final = 2
_CHUNK_BYTES: Final = 4 * 1024 * 1024
# What file systems call that which changes with a file's content.
_MARKS: Final = ("e_tag", "ETag", "Content-MD5", "Last-Modified", "last_modified", "mtime", "created", "ino")
_READ_ONLY: Final = frozenset({"http", "https"})

Info: TypeAlias = Mapping[str, object]


class FileSystem(Protocol):
    """What of fsspec's interface is used."""

    def ls(self, path: str, detail: bool) -> Sequence[Info]:
        """What lies in a folder."""

    def info(self, path: str) -> Info:
        """One file."""

    def cat_file(self, path: str) -> bytes:
        """A whole file."""

    def pipe_file(self, path: str, value: bytes) -> None:
        """Replace a file."""

    def open(self, path: str, mode: str, **options: object) -> io.BufferedIOBase:
        """A file to read."""

    def invalidate_cache(self) -> None:
        """Forget what was listed."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A file or folder of a store.

    Attributes:
        name: The last part of its path.
        size_bytes: None: the store does not say.
        mark: Changes when the content does; empty: the store does not say.
    """

    name: str
    is_folder: bool
    size_bytes: int | None
    mark: str


class Store:
    """The remote side. Blocking: not for the event loop's thread.

    Args:
        url: Of the folder with the models.

    Raises:
        InvalidConfiguration: No such protocol, or what it needs is not installed.
    """

    def __init__(self, url: str) -> None:
        self.url = url.rstrip("/")
        self._protocol = url.partition("://")[0]
        self._system = _file_system(self._protocol)

    def __repr__(self) -> str:
        return f"<Store {self.url}>"

    def entries(self, *path: str) -> list[Entry]:
        """What lies in a folder; nothing where there is none.

        Raises:
            RemoteUnavailable: It cannot be told.
        """
        # A page that lists a folder is the one whose address ends so.
        where = self._path(*path) + "/" * (self._protocol in _READ_ONLY)
        with self._translated("list", where):
            self._system.invalidate_cache()
            try:
                infos = self._system.ls(where, detail=True)
                # Pages also link to the folder above, and whither they like.
                return [_entry(info) for info in infos if ".." not in str(info["name"]).split("/")]
            except FileNotFoundError:
                return []

    def status(self, *path: str) -> Entry:
        """One file, where the listing did not say enough of it.

        Raises:
            RemoteUnavailable: It is not there, or it cannot be told.
        """
        with self._translated("ask for", where := self._path(*path)):
            return _entry(self._system.info(where))

    def read(self, *path: str) -> bytes:
        """A small file.

        Raises:
            RemoteUnavailable: It cannot be read.
        """
        with self._translated("read", where := self._path(*path)):
            return self._system.cat_file(where)

    def chunks(self, *path: str) -> Iterator[bytes]:
        """A large file, piece by piece.

        Raises:
            RemoteUnavailable: It cannot be read to its end.
        """
        # Not at a position: servers need not be able to, and it is read from end to end.
        options = {"block_size": 0} if self._protocol in _READ_ONLY else {}
        with (
            self._translated("read", where := self._path(*path)),
            self._system.open(where, "rb", **options) as file,
        ):
            yield from iter(partial(file.read, _CHUNK_BYTES), b"")

    def write(self, content: bytes, *path: str) -> None:
        """Replace a small file.

        Raises:
            RemoteUnavailable: It cannot be written.
            PermissionError: Nothing can be written there.
        """
        where = self._path(*path)
        if self._protocol in _READ_ONLY:
            raise PermissionError(0, f"{where}: over {self._protocol} it is only read; put it there yourself")
        with self._translated("write", where):
            self._system.pipe_file(where, content)

    def _path(self, *path: str) -> str:
        return "/".join((self.url, *path))

    @contextmanager
    def _translated(self, what: str, where: str) -> Iterator[None]:
        """Backends raise what they like: errors of sockets, of HTTP, of their own."""
        try:
            yield
        except Exception as error:
            said = str(error).strip().partition("\n")[0] or type(error).__name__
            raise RemoteUnavailable(f"cannot {what} {where}: {said}") from error


def _entry(info: Info) -> Entry:
    name = unquote(str(info["name"]).rstrip("/").rpartition("/")[2])
    size = info.get("size")
    marks = (str(info[key]) for key in _MARKS if info.get(key) is not None)
    return Entry(
        name, info.get("type") == "directory", size if isinstance(size, int) else None, " ".join(marks)
    )


def _cloud(protocol: str) -> FileSystem:
    from obstore.fsspec import FsspecStore

    make: Callable[..., object] = FsspecStore  # its signatures differ by protocols that are literals
    client = {"connect_timeout": f"{_CONNECT_S}s", "timeout": f"{_READ_S}s", "allow_http": True}
    retry = {"max_retries": _RETRIES}
    return cast(
        "FileSystem", make(protocol, client_options=client, retry_config=retry, skip_instance_cache=True)
    )


def _web(protocol: str) -> FileSystem:
    import fsspec
    from aiohttp import ClientTimeout

    timeout = ClientTimeout(total=None, sock_connect=_CONNECT_S, sock_read=_READ_S)
    return cast(
        "FileSystem",
        fsspec.filesystem(protocol, client_kwargs={"timeout": timeout}, skip_instance_cache=True),
    )


def _plain(protocol: str) -> FileSystem:
    import fsspec

    return cast("FileSystem", fsspec.filesystem(protocol))


_PROTOCOLS: Final[Mapping[str, Callable[[str], FileSystem]]] = MappingProxyType(
    {
        "s3": _cloud,
        "gs": _cloud,
        "az": _cloud,
        "http": _web,
        "https": _web,
        "file": _plain,
        "memory": _plain,
    }
)


def _file_system(protocol: str) -> FileSystem:
    if protocol not in _PROTOCOLS:
        raise InvalidConfiguration(
            f"no repository can be read over '{protocol}://'; there are {', '.join(_PROTOCOLS)}"
        )
    try:
        return _PROTOCOLS[protocol](protocol)
    except ImportError as error:
        raise InvalidConfiguration(
            f"a repository over '{protocol}://' needs {error.name}: pip install 'foldserve[remote]'"
        ) from error
