"""The page, its files and the model cards."""

from __future__ import annotations

import re
from pathlib import Path

import httpx
import pytest

import service as package
from service.api.pages import ModelCard
from service.app import Application
from service.errors import Reason
from service.images import FORMATS
from service.settings import Settings
from tests.service.api.conftest import LABELS, Running, Start
from tests.service.api.test_predict import problem_of

STATIC = Path(package.__file__).parent / "static"
FILES = sorted(path.name for path in STATIC.iterdir())
PAGES = [name for name in FILES if name.endswith(".html")]


async def test_cards_tell_what_serves_the_default_first(service: Running) -> None:
    response = await service.client.get("/models")
    cards = [ModelCard.model_validate(card) for card in response.json()]
    assert [(card.name, card.is_default) for card in cards] == [("tiny", True), ("tags", False)]
    assert cards[0].labels == LABELS
    assert cards[0].provider == "cpu"
    assert "selftest" not in response.text


async def test_without_a_default_the_cards_stand_by_name(start: Start) -> None:
    async with start(default_model=None) as service:
        cards = (await service.client.get("/models")).json()
    assert [(card["name"], card["is_default"]) for card in cards] == [("tags", False), ("tiny", False)]


async def test_before_a_model_is_loaded_there_are_no_cards(models: Path) -> None:
    transport = httpx.ASGITransport(Application(Settings(repository=models)))
    async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
        assert (await client.get("/models")).json() == []
        assert (await client.get("/")).status_code == 200


@pytest.mark.parametrize("path", ["/", "/docs", *(f"/static/{name}" for name in FILES)])
async def test_the_page_is_held_to_itself(service: Running, path: str) -> None:
    response = await service.client.get(path)
    assert response.status_code == 200
    assert "default-src 'none'" in response.headers["content-security-policy"]
    assert "unsafe" not in response.headers["content-security-policy"]
    assert response.headers["x-content-type-options"] == "nosniff"
    again = await service.client.get(path, headers={"if-none-match": response.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    other = await service.client.get(path, headers={"if-none-match": '"something else"'})
    assert other.content == response.content


@pytest.mark.parametrize("name", ["nothing.js", "..%2fapp.py", "%2e%2e", "py.typed", "index.html%00"])
async def test_other_files_are_not_found(service: Running, name: str) -> None:
    problem_of(await service.client.get(f"/static/{name}"), Reason.ROUTE_NOT_FOUND)


def _text(name: str) -> str:
    return (STATIC / name).read_text()


def test_every_file_of_the_page_is_used_and_every_reference_is_there() -> None:
    everything = "".join(_text(name) for name in FILES)
    for name in FILES:
        assert name in PAGES or name in everything
    for page in PAGES:
        for name in re.findall(r'(?:href|src)="static/([^"]+)"', _text(page)):
            assert name in FILES
    for script in (name for name in FILES if name.endswith(".js")):
        for name in re.findall(r'from "\./([^"]+)"', _text(script)):
            assert name in FILES


def test_the_pages_load_nothing_from_elsewhere_and_have_nothing_inline() -> None:
    for page in map(_text, PAGES):
        assert not re.search(r"<style|\sstyle=|\son[a-z]+=", page)
        assert all("src=" in tag for tag in re.findall(r"<script[^>]*>", page))
    for name in FILES:
        links = set(re.findall(r"https?://[^\s\"')]+", _text(name)))
        assert links <= {"http://www.w3.org/2000/svg"}


def test_every_control_has_a_name() -> None:
    page = _text("index.html")
    labelled = set(re.findall(r'<label[^>]*for="([^"]+)"', page))
    for tag in re.findall(r"<(?:input|select)[^>]*>", page):
        identifier = re.search(r'id="([^"]+)"', tag)
        assert identifier is not None
        assert identifier[1] in labelled or re.search(rf"<label[^>]*>\s*{re.escape(tag)}", page)


def test_the_page_has_plain_words_for_every_reason() -> None:
    table = _text("client.js").partition("const REASONS = {")[2].partition("};")[0]
    shown = set(re.findall(r"^  ([a-z_]+):", table, re.MULTILINE))
    # What a page that only posts images to /predict cannot meet.
    never = {
        Reason.ROUTE_NOT_FOUND,
        Reason.METHOD_NOT_ALLOWED,
        Reason.INVALID_INSTANCE,
        Reason.HEADERS_TOO_LARGE,
    }
    assert shown == {reason.value for reason in set(Reason) - never}


def test_the_page_names_every_format() -> None:
    page = _text("index.html").lower()
    assert all(name in page for name in FORMATS)
