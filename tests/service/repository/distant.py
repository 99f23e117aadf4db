"""Servers that a repository can lie on: a web server that lists folders, and object stores; all can fail.

The object stores speak what the clients of S3 and of Google Cloud Storage ask: list with a delimiter, read,
head, write, all without signatures.
"""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Final, Literal
from urllib.parse import parse_qs, unquote, urlsplit
from xml.sax.saxutils import escape

Fault = Literal["cut", "gone"]
BUCKET: Final = "shelf"


class Handler(SimpleHTTPRequestHandler):
    """A web server as Python carries it, which counts what is asked and cuts answers short on demand."""

    server: Distant
    protocol_version = "HTTP/1.1"

    def log_message(self, *_: object) -> None:
        """Say nothing."""

    def do_GET(self) -> None:
        """Answer, or not."""
        self.server.asked.append(self.path)
        fault = self.server.fault
        if fault == "gone":
            self.send_error(503)
        elif fault == "cut" and self.path.partition("?")[0].endswith(".onnx"):
            self._cut()
        else:
            self._answer()

    def do_HEAD(self) -> None:
        """Answer, or not."""
        if self.server.fault == "gone":
            self.send_error(503)
        else:
            self._head()

    def _answer(self) -> None:
        super().do_GET()

    def _head(self) -> None:
        super().do_HEAD()

    def _file(self) -> Path:
        return Path(self.translate_path(self.path))

    def _cut(self) -> None:
        """The first half of a file, announced as the whole of it."""
        content = self._file().read_bytes()
        self.send_response(200)
        self.send_header("content-length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) // 2])
        self.wfile.flush()
        self.close_connection = True


class ObjectHandler(Handler):
    """An object store over the same folder."""

    def _file(self) -> Path:
        path = unquote(urlsplit(self.path).path).strip("/").removeprefix(BUCKET).strip("/")
        return self.server.root / path

    def _answer(self) -> None:
        query = parse_qs(urlsplit(self.path).query)
        if "list-type" in query:
            self._list(query.get("prefix", [""])[0])
        elif self._file().is_file():
            self._read()
        else:
            self.send_error(404)

    def _head(self) -> None:
        if self._file().is_file():
            self._begin(200, self._file().read_bytes(), has_body=False)
        else:
            self.send_error(404)

    def do_PUT(self) -> None:
        """Replace a file."""
        content = self.rfile.read(int(self.headers["content-length"]))
        if self.server.is_read_only:
            self._begin(403, b"<Error><Code>AccessDenied</Code></Error>")
            return
        self._file().parent.mkdir(parents=True, exist_ok=True)
        self._file().write_bytes(content)
        self._begin(200, b"", tag=_tag(content))

    def _read(self) -> None:
        content = self._file().read_bytes()
        asked = self.headers.get("range")
        if asked is None:
            self._begin(200, content, tag=_tag(content))
            return
        first, last = asked.removeprefix("bytes=").split("-")
        part = content[int(first) : int(last) + 1]
        self._begin(
            206, part, tag=_tag(content), span=f"bytes {first}-{int(first) + len(part) - 1}/{len(content)}"
        )

    def _begin(
        self, status: int, content: bytes, *, tag: str = '""', span: str = "", has_body: bool = True
    ) -> None:
        self.send_response(status)
        self.send_header("content-length", str(len(content)))
        self.send_header("etag", _tag(content) if not has_body else tag)
        self.send_header("last-modified", "Mon, 02 Nov 2026 10:00:00 GMT")
        if span:
            self.send_header("content-range", span)
        self.end_headers()
        if has_body:
            self.wfile.write(content)

    def _list(self, prefix: str) -> None:
        folder = self.server.root / prefix
        entries = sorted(folder.iterdir()) if folder.is_dir() else []
        found = "".join(
            f"<CommonPrefixes><Prefix>{escape(prefix + entry.name)}/</Prefix></CommonPrefixes>"
            if entry.is_dir()
            else f"<Contents><Key>{escape(prefix + entry.name)}</Key><Size>{entry.stat().st_size}</Size>"
            f"<LastModified>2026-11-02T10:00:00.000Z</LastModified>"
            f"<ETag>{escape(_tag(entry.read_bytes()))}</ETag></Contents>"
            for entry in entries
        )
        self._begin(
            200, f"<ListBucketResult>{found}<IsTruncated>false</IsTruncated></ListBucketResult>".encode()
        )


def _tag(content: bytes) -> str:
    return f'"{hashlib.md5(content, usedforsecurity=False).hexdigest()}"'


class Distant(ThreadingHTTPServer):
    """A server over a folder.

    Attributes:
        asked: The paths of all that was read.
        fault: How it fails from now on.
        is_read_only: Whether writing is forbidden.
    """

    daemon_threads = True

    def __init__(self, root: Path, handler: type[Handler]) -> None:
        self.root = root
        self.asked: list[str] = []
        self.fault: Fault | None = None
        self.is_read_only = False
        super().__init__(("127.0.0.1", 0), partial(handler, directory=str(root)))

    @property
    def address(self) -> str:
        """Without a path."""
        return f"http://127.0.0.1:{self.server_port}"

    def fetched(self) -> list[str]:
        """The model files that were read."""
        return [path for path in self.asked if urlsplit(path).path.endswith(".onnx")]


@contextmanager
def distant(root: Path, handler: type[Handler] = Handler) -> Iterator[Distant]:
    """A server that answers until the end."""
    root.mkdir(parents=True, exist_ok=True)
    with Distant(root, handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
