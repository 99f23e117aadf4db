"""A client on the wire: bytes as they stand, and everything that a good client would not do."""

from __future__ import annotations

import asyncio
import json
import re
from dataclasses import dataclass

from service.errors import Reason
from service.schemas import Problem
from tests.model_files import TinyModel, png

TIMEOUT_S = 10.0
IMAGE = png(TinyModel.make().image(1))
GET = b"GET /livez HTTP/1.1\r\nHost: x\r\n\r\n"


@dataclass(frozen=True)
class Answer:
    """One HTTP response, and whether the connection ended with it."""

    status: int
    headers: dict[str, str]
    body: bytes

    @property
    def reason(self) -> Reason:
        """Of a problem."""
        assert self.headers["content-type"] == "application/problem+json"
        return Problem.model_validate(json.loads(self.body)).reason


class Wire:
    """A client that can do everything wrong."""

    def __init__(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self._reader = reader
        self._writer = writer

    async def send(self, data: bytes) -> None:
        """Write as it stands."""
        self._writer.write(data)
        await self._writer.drain()

    async def answer(self) -> Answer:
        """The next response."""
        async with asyncio.timeout(TIMEOUT_S):
            head = (await self.head()).decode()
            status = int(head.split()[1])
            headers = {name.lower(): value for name, value in re.findall(r"([\w-]+): (.*)\r\n", head)}
            return Answer(status, headers, await self._reader.readexactly(int(headers["content-length"])))

    async def head(self) -> bytes:
        """What comes up to an empty line."""
        async with asyncio.timeout(TIMEOUT_S):
            return await self._reader.readuntil(b"\r\n\r\n")

    async def ended(self) -> bool:
        """Wait until the server closes; True if nothing more came."""
        async with asyncio.timeout(TIMEOUT_S):
            return await self._reader.read() == b""

    def leave(self) -> None:
        """Close."""
        self._writer.close()

    def vanish(self) -> None:
        """Reset the connection."""
        self._writer.transport.abort()


def request(body: bytes = IMAGE, length: int | None = None, *extra: str) -> bytes:
    """A POST of an image, as bytes; ``length`` announces another size than the body's."""
    lines = ["POST /predict HTTP/1.1", "Host: x", "Content-Type: image/png", *extra]
    lines.append(f"Content-Length: {len(body) if length is None else length}")
    return "\r\n".join([*lines, "", ""]).encode() + body
