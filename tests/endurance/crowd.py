"""Clients that ask all the time, and sometimes leave.

``python -m tests.endurance.crowd URL BOOKS CONNECTIONS FIRST LAST``

Each connection has its own row of the books. What it sends carries an id and a picture of which the label is
known, so an answer can be told from somebody else's.
"""

from __future__ import annotations

import asyncio
import random
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final
from urllib.parse import SplitResult, urlsplit

import numpy as np
import orjson

from loadtest.connection import Answer, Connection
from tests.endurance.books import Books, Column, Entries
from tests.model_files import TinyModel, png

LABELS: Final = ("cat", "dog", "bird")
_LEAVE_SHARE: Final = 0.05
# Somewhere between the request's way and the answer's.
_LONGEST_WAIT_S: Final = 0.004
_RETRY_S: Final = 0.01


@dataclass(frozen=True)
class Question:
    """A picture, and what it must be called."""

    image: bytes
    label: str

    def request(self, address: SplitResult, request_id: str) -> bytes:
        """As bytes for the wire."""
        head = (
            f"POST /predict?top_k=1 HTTP/1.1\r\nHost: {address.netloc}\r\nX-Request-ID: {request_id}\r\n"
            f"Content-Type: image/png\r\nContent-Length: {len(self.image)}\r\n\r\n"
        )
        return head.encode() + self.image

    def is_answered_by(self, answer: Answer, request_id: str) -> bool:
        """Whether this is the answer to it, and to no other."""
        document = orjson.loads(answer.content)
        (prediction,) = document["predictions"]
        return bool(document["request_id"] == request_id and prediction["label"] == self.label)


def questions() -> list[Question]:
    """Pictures of every label."""
    model = TinyModel.make()
    images = [model.image(seed) for seed in range(40)]
    labels = model.logits(np.stack(images)).argmax(axis=1)
    return [Question(png(image), LABELS[label]) for image, label in zip(images, labels, strict=True)]


class Customer:
    """One connection after the other, and their row in the books."""

    def __init__(self, address: SplitResult, row: int, books: Books) -> None:
        self._address = address
        self._row = row
        self._books = books
        self._entries: Entries = books.rows[row]
        self._chance = random.Random(row)
        self._questions = questions()

    async def live(self) -> None:
        """Ask until the books are closed."""
        while not self._books.is_over:
            try:
                connection = await Connection.open(self._address)
            except OSError:  # nobody listens: the service is being restarted
                await asyncio.sleep(_RETRY_S)
                continue
            while connection.is_open and not self._books.is_over:
                await self._ask(connection)
            connection.close()

    async def _ask(self, connection: Connection) -> None:
        question = self._chance.choice(self._questions)
        request_id = f"{self._row}-{self._entries[Column.SENT]}"
        request = question.request(self._address, request_id)
        future: asyncio.Future[Answer] = asyncio.get_running_loop().create_future()
        self._entries[Column.SENT] += 1
        connection.send(request, lambda _, answer: future.set_result(answer))
        if self._chance.random() < _LEAVE_SHARE:
            await asyncio.wait([future], timeout=self._chance.uniform(0, _LONGEST_WAIT_S))
        else:
            await future
        if future.done():
            self._entries[_judged(question, future.result(), request_id)] += 1
        else:
            self._entries[Column.LEFT] += 1
            connection.close()
            await future  # until it is closed


def _judged(question: Question, answer: Answer, request_id: str) -> Column:
    if answer.status == 0:
        return Column.BROKEN
    if answer.status != 200:
        return Column.REFUSED
    return Column.ANSWERED if question.is_answered_by(answer, request_id) else Column.WRONG


async def crowd(url: str, books: Books, rows: range) -> None:
    """One customer a row, until the books are closed."""
    address = urlsplit(url)
    await asyncio.gather(*(Customer(address, row, books).live() for row in rows))


def main(arguments: Sequence[str]) -> None:
    """See the module."""
    url, path, connections, first, last = arguments
    books = Books(Path(path), int(connections))
    asyncio.run(crowd(url, books, range(int(first), int(last))))


if __name__ == "__main__":
    main(sys.argv[1:])
