"""The page in a real browser. Needs playwright and a chromium of the system; skips without them."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.model_files import TinyModel, png, write_model
from tests.service.test_process import running

playwright = pytest.importorskip("playwright.async_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this system"),
]

MODEL = TinyModel.make()


class Page:
    """The playground in a browser, by what a person sees."""

    def __init__(self, page: Any, complaints: list[str]) -> None:  # Any: playwright is optional
        self.page = page
        self.complaints = complaints

    async def choose(self, *files: Path) -> None:
        """Hands files to the input and waits for as many outcomes."""
        await self.page.set_input_files("#files", [str(file) for file in files])

    async def outcomes(self, count: int) -> list[str]:
        """The texts of the outcomes, once there are so many."""
        await self.page.wait_for_selector(f".prediction:nth-child({count}):last-child")
        return [str(text) for text in await self.page.locator(".prediction").all_inner_texts()]

    async def text(self, selector: str) -> str:
        """The visible text of an element."""
        return str(await self.page.locator(selector).inner_text())


@pytest.fixture
async def page(tmp_path: Path) -> AsyncIterator[Page]:
    """The page of a service with two models; fails if the browser complained."""
    models = tmp_path / "models"
    write_model(models, model=MODEL, labels=("cat", "dog", "bird"))
    write_model(models, name="zoo", model=MODEL, labels=("ant", "bee", "cow"))
    write_model(models, version="2", fault="wrong_logits")
    async with running(models, "--default-model", "zoo") as service, playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        tab = await browser.new_page()
        tab.set_default_timeout(20_000)
        complaints: list[str] = []
        tab.on("pageerror", lambda error: complaints.append(str(error)))
        tab.on("console", lambda message: complaints.append(message.text))
        await tab.goto(service.url)
        await tab.wait_for_selector("#model option[value]", state="attached")
        yield Page(tab, complaints)
        await browser.close()
    assert complaints == []


@pytest.fixture
def pictures(tmp_path: Path) -> list[Path]:
    """Two good pictures and a damaged one."""
    data = [png(MODEL.image(1)), png(MODEL.image(2)), png(MODEL.image(3))[:-20]]
    paths = [tmp_path / f"picture-{number}.png" for number in range(3)]
    for path, content in zip(paths, data, strict=True):
        path.write_bytes(content)
    return paths


async def test_a_chosen_image_is_predicted_with_its_timings(page: Page, pictures: list[Path]) -> None:
    assert "zoo, version 1" in await page.text("#card")
    await page.choose(pictures[0])
    (outcome,) = await page.outcomes(1)
    assert "picture-0.png" in outcome
    assert all(label in outcome for label in ("ant", "bee", "cow"))
    legend = await page.text("#legend")
    assert all(stage in legend for stage in ("decode", "queue", "inference", "round trip"))
    assert "--data-binary '@picture-0.png'" in await page.text("#curl")


async def test_of_several_images_the_damaged_one_gets_its_reason(page: Page, pictures: list[Path]) -> None:
    await page.choose(*pictures)
    outcomes = await page.outcomes(3)
    assert "damaged" in outcomes[2]
    assert "%" in outcomes[0]


async def test_another_model_answers_for_the_same_image(page: Page, pictures: list[Path]) -> None:
    await page.choose(pictures[0])
    await page.outcomes(1)
    await page.page.select_option("#model", "tiny")
    await page.page.wait_for_selector("text=bird")
    assert "tiny, version 1" in await page.text("#card")


async def test_a_refused_version_is_shown_with_its_reason(page: Page) -> None:
    assert not await page.page.is_visible("#refused")
    await page.page.select_option("#model", "tiny")
    await page.page.wait_for_selector("#refused:not([hidden])")
    assert "version 2 (selftest_failed)" in await page.text("#refused")
    await page.page.click("#versions-details summary")
    refused, live = await page.page.locator("#versions tr").all_inner_texts()
    assert "selftest_failed: " in refused
    assert "logits differ" in refused
    assert "live" in live


async def test_a_drawing_is_predicted_when_the_stroke_ends(page: Page) -> None:
    await page.page.focus("#tab-files")
    await page.page.keyboard.press("ArrowRight")
    box = await page.page.locator("#canvas").bounding_box()
    assert box is not None
    await page.page.mouse.move(box["x"] + 60, box["y"] + 60)
    await page.page.mouse.down()
    await page.page.mouse.move(box["x"] + 150, box["y"] + 150, steps=5)
    await page.page.mouse.up()
    (outcome,) = await page.outcomes(1)
    assert "drawing.png" in outcome


async def test_a_refused_image_is_explained_with_its_request(page: Page, pictures: list[Path]) -> None:
    await page.choose(pictures[2])
    await page.page.wait_for_selector("#problem:not([hidden])")
    assert "picture-2.png: This is no image, or a damaged one." in await page.text("#problem")
    assert await page.text("#request-id")
    page.complaints[:] = [text for text in page.complaints if "422" not in text]


async def test_the_reference_shows_every_route_and_unfolds_a_schema(page: Page) -> None:
    await page.page.click("text=API")
    await page.page.wait_for_selector(".operation")
    routes = await page.text("#index")
    assert all(route in routes for route in ("POST /predict", "GET /readyz", "GET /metrics"))
    assert "X-Request-Timeout-Ms" in await page.text("#post--predict")
    await page.page.click("#post--predict >> text=PredictResponse")
    await page.page.wait_for_selector("#schema-PredictResponse[open]")
    assert "request_id" in await page.text("#schema-PredictResponse")
