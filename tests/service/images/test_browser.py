"""A browser as the second decoder must see the same pixels. Needs playwright and a chromium of the system."""

from __future__ import annotations

import base64
import shutil

import numpy as np
import pytest

from service.images import decode
from tests.service.images.contracts import contract
from tests.service.images.corpus import FILL, specimens

playwright = pytest.importorskip("playwright.async_api")
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium on this system"),
]

# Width, height and RGBA values of a picture drawn on the fill.
DRAW = """async ([url, fill]) => {
  const image = new Image();
  image.src = url;
  await image.decode();
  const canvas = document.createElement("canvas");
  [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
  const context = canvas.getContext("2d");
  context.fillStyle = fill;
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.drawImage(image, 0, 0);
  const { data } = context.getImageData(0, 0, canvas.width, canvas.height);
  return [canvas.width, canvas.height, Array.from(data)];
}"""

# No browser but Safari shows TIFF, and Chromium does not look at the EXIF block of a WebP.
SHOWN = [s for s in specimens() if s.format != "tiff" and not s.name.startswith("webp-orientation")]


async def test_the_browser_sees_the_same_pixels() -> None:
    fill = f"rgb({', '.join(map(str, FILL))})"
    differing = {}
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(
            executable_path=CHROMIUM, args=["--no-sandbox", "--force-color-profile=srgb"]
        )
        page = await browser.new_page()
        for specimen in SHOWN:
            url = f"data:image/{specimen.format};base64,{base64.b64encode(specimen.data).decode()}"
            width, height, values = await page.evaluate(DRAW, [url, fill])
            seen = np.array(values, dtype=np.int64).reshape(height, width, 4)[:, :, :3]
            pixels = decode(specimen.data, contract(height, width, fill=FILL))
            if seen.shape != specimen.pixels.shape or np.abs(seen - pixels).max() > 2:
                differing[specimen.name] = seen.shape
        await browser.close()
    assert differing == {}
