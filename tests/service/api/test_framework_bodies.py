"""Bodies of the routes that FastAPI answers: the limits of every body hold for them too."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from service.access import Scope, make_key
from service.errors import Reason
from tests.service.api.conftest import Running, Start
from tests.service.api.test_predict import problem_of

INDEX = "/v2/repository/index"
JSON = {"content-type": "application/json"}


async def chunks(count: int) -> AsyncIterator[bytes]:
    """A body whose length is not announced."""
    for _ in range(count):
        yield b" " * 1000


async def test_a_body_within_the_limit_is_read(start: Start) -> None:
    async with start(max_body_bytes=4096) as service:
        response = await service.client.post(INDEX, content=b'{"ready": true}', headers=JSON)
        assert [entry["name"] for entry in response.json()] == ["tags", "tiny"]
        assert service.application.inference.bodies.held_bytes == 0


@pytest.mark.parametrize("kind", [None, "application/x-www-form-urlencoded", "text/plain"])
async def test_a_body_is_json_whatever_its_sender_calls_it(service: Running, kind: str | None) -> None:
    """Triton's clients say nothing, curl says it is a form."""
    headers = {} if kind is None else {"content-type": kind}
    problem_of(
        await service.client.post(INDEX, content=b'{"ready": 0}', headers=headers), Reason.INVALID_PARAMETER
    )
    response = await service.client.post(INDEX, content=b'{"ready": true}', headers=headers)
    assert [entry["name"] for entry in response.json()] == ["tags", "tiny"]


@pytest.mark.parametrize("body", [b" " * 5000, chunks(1000)], ids=["announced", "not announced"])
async def test_a_larger_one_is_refused(start: Start, body: bytes | AsyncIterator[bytes]) -> None:
    async with start(max_body_bytes=4096) as service:
        problem_of(await service.client.post(INDEX, content=body, headers=JSON), Reason.BODY_TOO_LARGE)
        assert service.application.inference.bodies.held_bytes == 0


async def test_there_must_be_room_for_it(start: Start) -> None:
    async with start(max_body_bytes=4096, max_bytes_in_flight=4096) as service:
        service.application.inference.bodies.held_bytes = 4000
        problem_of(await service.client.post(INDEX, content=b" " * 97, headers=JSON), Reason.OVERLOADED)


@pytest.mark.parametrize(
    "body", [b"{", b"\xff", b"[" * 4000, b"1" * 4400], ids=["half", "no text", "too deep", "too long"]
)
async def test_what_is_no_json_is_malformed(service: Running, body: bytes) -> None:
    problem_of(await service.client.post(INDEX, content=body, headers=JSON), Reason.MALFORMED_BODY)


@pytest.mark.parametrize("body", [b"[]", b'{"ready": 0}', b"NaN"])
async def test_json_that_means_nothing_is_an_invalid_parameter(service: Running, body: bytes) -> None:
    problem_of(await service.client.post(INDEX, content=body, headers=JSON), Reason.INVALID_PARAMETER)


async def test_half_a_character_is_told_as_it_was_written(start: Start, tmp_path: Path) -> None:
    secret, line = make_key("operator", [Scope.ADMIN])
    (tmp_path / "keys").write_text(line)
    async with start(api_keys_file=tmp_path / "keys") as service:
        response = await service.client.post(
            "/v2/repository/models/tiny/load",
            content=b'{"parameters": {"\\ud800": 1}}',
            headers={**JSON, "x-api-key": secret},
        )
        assert "'\\ud800'" in problem_of(response, Reason.INVALID_PARAMETER).detail
