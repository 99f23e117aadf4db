"""A real process whose engine obeys, and what its clients and its scraper see."""

from __future__ import annotations

import asyncio
import io
import re
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TypeAlias

import httpx
import pytest
from PIL import Image

from service.errors import Reason
from tests.model_files import write_model
from tests.service.faults.faulty import Order
from tests.service.test_process import TIMEOUT_S, Service, running
from tests.service.wire import IMAGE, Wire

TINY = 'model="tiny"'
FAULTY = "tests.service.faults.faulty"


@dataclass(frozen=True)
class Watched:
    """A running service, seen from outside.

    Attributes:
        client: Of which every request has its own connection if it likes.
        orders: The file in which its engine looks for orders.
    """

    service: Service
    client: httpx.AsyncClient
    orders: Path

    async def predict(self) -> httpx.Response:
        """The answer to a good image."""
        return await self.client.post("/predict", content=IMAGE)

    async def probe(self, path: str) -> int:
        """The status of a probe."""
        return (await self.client.get(path)).status_code

    async def metric(self, series: str) -> float:
        """One series, as it is scraped; 0 where there is none."""
        text = (await self.client.get("/metrics")).text
        found = re.search(rf"^{re.escape(series)} (\S+)$", text, re.MULTILINE)
        return float(found[1]) if found else 0.0

    async def outcomes(self, outcome: str) -> float:
        """Images of the tiny model that ended so."""
        return await self.metric(f'foldserve_images_total{{{TINY},outcome="{outcome}",version="1"}}')

    async def until(self, series: str, value: float) -> None:
        """Wait until a series has this value."""

        async def has_come() -> bool:
            return await self.metric(series) == value

        await eventually(has_come)

    def order(self, order: Order) -> None:
        """Have the next batch do this."""
        draft = self.orders.with_suffix(".draft")
        draft.write_text(order)
        draft.rename(self.orders)

    async def obeyed(self) -> None:
        """Wait until a batch has taken the order."""
        await eventually(self.orders.with_suffix(".taken").exists)

    def let_go(self) -> None:
        """End a batch's waiting."""
        self.orders.with_suffix(".taken").unlink()

    @asynccontextmanager
    async def connected(self) -> AsyncIterator[Wire]:
        """A client's bare connection."""
        host, _, port = self.service.url.removeprefix("http://").partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        try:
            yield Wire(reader, writer)
        finally:
            writer.close()

    async def end(self) -> str:
        """Have it end as operators do; its log."""
        self.service.process.terminate()
        async with asyncio.timeout(TIMEOUT_S):
            assert await self.service.process.wait() == 0
            return await self.service.log()


async def eventually(condition: Callable[[], bool | Awaitable[bool]]) -> None:
    """Wait until it holds; for what another process brings about, of which no event reaches here."""
    async with asyncio.timeout(TIMEOUT_S):
        while not (holds if isinstance(holds := condition(), bool) else await holds):  # noqa: ASYNC110 - no event
            await asyncio.sleep(0.01)


def reason_of(response: httpx.Response) -> Reason:
    """Of a problem."""
    return Reason(response.json()["reason"])


@asynccontextmanager
async def watching(root: Path, *flags: str, program: str = FAULTY) -> AsyncIterator[Watched]:
    """A service with these flags, and an obedient engine unless ``program`` is the real one."""
    write_model(root / "models")
    orders = root / "orders"
    async with (
        running(root / "models", *flags, program=program, ORDERS=str(orders)) as service,
        httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT_S) as client,
    ):
        yield Watched(service, client, orders)


Watch: TypeAlias = Callable[..., AbstractAsyncContextManager[Watched]]


@pytest.fixture
def watch(tmp_path: Path) -> Watch:
    """`watching` in a folder of the test's own."""
    return partial(watching, tmp_path)


@pytest.fixture(scope="session")
def large_image() -> bytes:
    """100 MB once it is decoded, which takes a moment."""
    buffer = io.BytesIO()
    Image.new("RGB", (6000, 6000)).save(buffer, "png", compress_level=1)
    return buffer.getvalue()
