"""A service that answers by script: ready, and with whatever a test tells it to say."""

from __future__ import annotations

import contextlib
import json
import threading
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Answer = tuple[int, dict[str, Any]]
Script = Callable[[str, bytes], Answer]  # (content type, body) → (status, document)
HANG_UP: Answer = (0, {})  # ends the connection instead of answering


def prediction(label: str = "7") -> dict[str, Any]:
    """One right-shaped prediction."""
    entry = {"label": label, "index": 7, "probability": 0.75}
    other = {"label": "other", "index": 1, "probability": 0.25}
    return entry | {"top": [entry, other]}


def document(predictions: int, label: str = "7") -> dict[str, Any]:
    """One right-shaped answer."""
    return {
        "model": "digits",
        "version": "1",
        "request_id": "r",
        "predictions": [prediction(label) for _ in range(predictions)],
    }


def count_images(content_type: str, body: bytes) -> int:
    """Pictures in a body, by its form."""
    if content_type == "application/json":
        return len(json.loads(body)["images"])
    return body.count(b'name="image"') if content_type.startswith("multipart/") else 1


def right_shaped(content_type: str, body: bytes) -> Answer:
    """The script of a good service."""
    return 200, document(count_images(content_type, body))


@contextlib.contextmanager
def serving(script: Script) -> Iterator[str]:
    """The address of a service that follows ``script`` for the length of the block."""
    server = bound("127.0.0.1", 0, script)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_address[1]}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def bound(host: str, port: int, script: Script) -> ThreadingHTTPServer:
    """The same at a chosen address, not yet serving."""
    return ThreadingHTTPServer((host, port), _handler(script))


def _handler(script: Script) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        wbufsize = -1  # one write an answer

        def do_GET(self) -> None:
            self._send(200, {"ready": True})

        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            self._send(*script(self.headers["Content-Type"], body))

        def _send(self, status: int, document: dict[str, Any]) -> None:
            if status == 0:
                self.close_connection = True
                return
            content = json.dumps(document).encode()
            self.send_response(status)
            self.send_header("Content-Length", str(len(content)))
            self.send_header("Server-Timing", "decode;dur=0.5, queue;dur=0.25, inference;dur=2")
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002  # the base class's name
            """Says nothing."""

    return Handler
