"""Every request of the catalogue gets its answer from the real process, and nothing is left of it."""

from __future__ import annotations

import asyncio
import hashlib
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from service.errors import Reason
from tests.model_files import write_model
from tests.service.refusals.access import KEYS, METRICS, PREDICT
from tests.service.refusals.attempt import IMAGE, Attempt, Stated
from tests.service.refusals.catalogue import AREAS, document
from tests.service.test_process import TIMEOUT_S, Service, running
from tests.service.wire import Wire

pytestmark = pytest.mark.e2e

DOCUMENT = Path(__file__).parents[3] / "docs" / "refusals.md"
LIMITS = ("--max-header-bytes", "4096", "--max-body-bytes", "65536", "--max-images-per-request", "4")
TOGETHER = 8


def attempts(*, is_keyed: bool) -> list[Attempt]:
    return [attempt for area in AREAS if area.is_keyed == is_keyed for attempt in area.attempts()]


@asynccontextmanager
async def connected(service: Service) -> AsyncIterator[Wire]:
    address = urlsplit(service.url)
    reader, writer = await asyncio.open_connection(address.hostname, address.port)
    try:
        yield Wire(reader, writer)
    finally:
        writer.close()


async def answered(service: Service, attempt: Attempt) -> Stated:
    """What the process says to one of them."""
    async with connected(service) as wire:
        await wire.send(attempt.data)
        answer = await wire.answer()
        return Stated(answer.status, answer.reason if answer.status >= 400 else None)


async def wrong_answers(service: Service, sent: Sequence[Attempt]) -> dict[str, Stated]:
    """Those that got another answer than the one that is stated."""
    wrong = {}
    waiting = list(reversed(sent))

    async def client() -> None:
        while waiting:
            attempt = waiting.pop()
            if (found := await answered(service, attempt)) != attempt.stated:
                wrong[attempt.name] = found

    await asyncio.gather(*(client() for _ in range(TOGETHER)))
    return wrong


async def rejected(client: httpx.AsyncClient) -> Counter[str]:
    """`foldserve_rejected_total`, by reason."""
    text = (await client.get("/metrics")).text
    lines = [line for line in text.splitlines() if line.startswith("foldserve_rejected_total{")]
    return Counter({line.split('"')[1]: int(float(line.split()[-1])) for line in lines})


@pytest.mark.parametrize("is_keyed", [False, True], ids=["open", "keyed"])
async def test_every_request_gets_its_stated_answer(tmp_path: Path, is_keyed: bool) -> None:
    write_model(tmp_path / "models")
    flags: tuple[str, ...] = LIMITS
    headers: dict[str, str] = {}
    if is_keyed:
        file = tmp_path / "keys"
        lines = [f"{scope} {scope} {hashlib.sha256(key.encode()).hexdigest()}" for key, scope in KEYS.items()]
        file.write_text("\n".join(lines))
        flags = (*LIMITS, "--api-keys-file", str(file))
        headers = dict([METRICS.split(": ")])
    sent = attempts(is_keyed=is_keyed)
    async with (
        running(tmp_path / "models", *flags) as service,
        httpx.AsyncClient(base_url=service.url, headers=headers, timeout=TIMEOUT_S) as client,
    ):
        assert await wrong_answers(service, sent) == {}
        counted = await rejected(client)
        if is_keyed:
            text = (await client.get("/metrics")).text
            assert 'foldserve_key_requests_total{key="predict",outcome="forbidden"} 3' in text
            assert 'foldserve_key_requests_total{key="predict",outcome="admitted"} 1' in text
        predicting = dict([PREDICT.split(": ")]) if is_keyed else {}
        assert (await client.post("/predict", content=IMAGE, headers=predicting)).status_code == 200
        service.process.terminate()
        assert await service.process.wait() == 0
        log = await service.log()
    stated = Counter(str(attempt.stated.reason) for attempt in sent if attempt.stated.reason is not None)
    assert counted.keys() <= set(Reason)
    assert all(counted[reason] >= number for reason, number in stated.items())
    assert "Traceback" not in log
    assert not any(secret in log for secret in KEYS)


def test_there_are_hundreds_and_each_has_a_name_of_its_own() -> None:
    assert len(attempts(is_keyed=False)) + len(attempts(is_keyed=True)) >= 300
    for area in AREAS:
        names = Counter(attempt.name for attempt in area.attempts())
        assert names.most_common(1)[0][1] == 1


async def test_another_answer_than_the_stated_one_is_noticed(tmp_path: Path) -> None:
    write_model(tmp_path)
    good, bad = attempts(is_keyed=False)[:2]
    mistaken = Attempt("mistaken", bad.data, Stated(404, Reason.ROUTE_NOT_FOUND))
    async with running(tmp_path) as service:
        assert set(await wrong_answers(service, [good, mistaken])) == {"mistaken"}


def test_the_document_is_what_was_tried() -> None:
    assert DOCUMENT.read_text() == document(), "write it anew: python -m tests.service.refusals.catalogue"
