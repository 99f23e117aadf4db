"""The shadow: what it counts of a right and a wrong candidate, what it drops, that nobody notices it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from functools import partial
from pathlib import Path

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray

from service.app import Application
from service.artifact import Task
from service.batcher import Row
from service.repository import Repository, ServedModel
from service.repository.shadow import Comparison, Shadow
from service.settings import Settings
from tests.model_files import TinyModel, png, write_model
from tests.service.fakes import until
from tests.service.repository.running import serving

LABELS = ("cat", "dog", "bird")
MODEL = TinyModel.make(seed=1)
NOISE = TinyModel.make(seed=2)
WRONG = TinyModel(MODEL.shape, MODEL.weights + NOISE.weights / np.float32(2), MODEL.bias)
# The same scores, but the first two labels change places.
SWAPPED = TinyModel(MODEL.shape, MODEL.weights[:, [1, 0, 2]], MODEL.bias[[1, 0, 2]])
IMAGES = [MODEL.image(seed) for seed in range(20)]


def softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = np.exp(logits.astype(np.float64) - logits.max(axis=-1, keepdims=True))
    return np.asarray(shifted / shifted.sum(axis=-1, keepdims=True))


def cast(root: Path, candidate: TinyModel, labels: Sequence[str] = LABELS) -> None:
    """A live version 1, and 2 as its shadow."""
    write_model(root, version="1", model=MODEL, labels=LABELS)
    write_model(root, version="2", model=candidate, labels=tuple(labels))
    (root / "tiny" / "serving.json").write_text(json.dumps({"shadow": "2"}))


async def rows_of(served: ServedModel) -> list[Row]:
    with served.batcher.admit(len(IMAGES)) as permit:
        return [await served.batcher.submit(permit, image) for image in IMAGES]


def shadow_of(repository: Repository) -> Shadow:
    audience = repository.resolve().tap.audience
    assert isinstance(audience, Shadow)
    return audience


def counted(repository: Repository) -> dict[str, float]:
    family = repository._metrics.shadow_images
    return {values[-1]: series.value for values, series in family.items()}


def has_counted(repository: Repository, images: int) -> bool:
    return sum(counted(repository).values()) == images


async def shown(repository: Repository, *, encoded: bool) -> dict[str, float]:
    """What is counted once every image was answered and compared."""
    shadow = shadow_of(repository)
    rows = await rows_of(repository.resolve())
    shadow.offer([png(image) if encoded else image for image in IMAGES], rows)
    await until(lambda: shadow.is_idle)
    return counted(repository)


@pytest.mark.parametrize("encoded", [True, False])
async def test_a_candidate_that_is_the_same_agrees(tmp_path: Path, encoded: bool) -> None:
    cast(tmp_path, MODEL)
    async with serving(tmp_path) as repository:
        assert await shown(repository, encoded=encoded) == {
            "agreed": 20,
            "differed": 0,
            "dropped": 0,
            "failed": 0,
        }
        distance = repository._metrics.shadow_distance.labels("tiny", "1", "2")
        assert distance.sum < 1e-5


@pytest.mark.parametrize("encoded", [True, False])
async def test_the_figures_of_a_wrong_candidate_are_right(tmp_path: Path, encoded: bool) -> None:
    cast(tmp_path, WRONG)
    batch = np.stack(IMAGES)
    live, other = softmax(MODEL.logits(batch)), softmax(WRONG.logits(batch))
    agreed = int((live.argmax(axis=1) == other.argmax(axis=1)).sum())
    assert 0 < agreed < 20
    async with serving(tmp_path) as repository:
        counts = await shown(repository, encoded=encoded)
        assert (counts["agreed"], counts["differed"]) == (agreed, 20 - agreed)
        distance = repository._metrics.shadow_distance.labels("tiny", "1", "2")
        assert distance.sum == pytest.approx(0.5 * np.abs(live - other).sum(), rel=1e-4)
        seconds = repository._metrics.shadow_inference
        for side in ("live", "candidate"):
            assert sum(seconds.labels("tiny", "1", "2", side).counts) == 20


async def test_labels_in_another_order_are_compared_by_name(tmp_path: Path) -> None:
    cast(tmp_path, SWAPPED, ("dog", "cat", "bird"))
    async with serving(tmp_path) as repository:
        assert (await shown(repository, encoded=True))["agreed"] == 20
        assert repository._metrics.shadow_distance.labels("tiny", "1", "2").sum < 1e-5


async def test_the_shadow_answers_nobody_but_who_asks_for_it(tmp_path: Path) -> None:
    cast(tmp_path, WRONG)
    async with serving(tmp_path) as repository:
        keys = [b"%d" % number for number in range(100)]
        assert {repository.resolve("tiny", None, key).version for key in keys} == {"1"}
        assert repository.resolve("tiny", "2").is_background
        assert repository.resolve("tiny", "2").engine.threads == 1
        roles = {line.version: line.roles for line in repository.index()}
        assert roles == {"2": ("shadow",), "1": ("live",)}


async def test_a_failing_candidate_is_only_counted(tmp_path: Path) -> None:
    cast(tmp_path, MODEL)
    async with serving(tmp_path) as repository:
        await repository.resolve("tiny", "2").batcher.close(1)
        assert (await shown(repository, encoded=True))["failed"] == 20
        assert repository.is_ready
        assert repository.is_alive


async def test_a_failure_that_nobody_thought_of_is_counted_and_the_next_copy_compared(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cast(tmp_path, MODEL)
    async with serving(tmp_path) as repository:
        with monkeypatch.context() as patched:
            patched.setattr("service.repository.shadow.decode", lambda *_: 1 / 0)
            assert (await shown(repository, encoded=True))["failed"] == 20
        assert (await shown(repository, encoded=True))["agreed"] == 20
    assert "nobody thought of" in caplog.text


async def test_what_comes_after_its_end_is_left_alone(tmp_path: Path) -> None:
    """A request is copied in the turn after its answer; a reload may have come in between."""
    cast(tmp_path, MODEL)
    async with serving(tmp_path) as repository:
        shadow, rows = shadow_of(repository), await rows_of(repository.resolve())
        (tmp_path / "tiny" / "serving.json").write_text('{"version": "1"}')
        await repository.look()
        shadow.offer(IMAGES, rows)
        assert shadow.is_idle
        assert set(counted(repository).values()) == {0}


async def test_what_does_not_fit_is_dropped(tmp_path: Path) -> None:
    cast(tmp_path, MODEL)
    async with serving(tmp_path) as repository:
        shadow = shadow_of(repository)
        rows = await rows_of(repository.resolve())
        shadow.offer([IMAGES[0]] * 100, [rows[0]] * 100)
        assert counted(repository)["dropped"] == 36
        await until(lambda: shadow.is_idle)
        assert counted(repository)["agreed"] == 64
        shadow.offer([bytes(17 * 1024 * 1024)], rows[:1])
        assert counted(repository)["dropped"] == 37


async def test_the_live_version_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    cast(tmp_path, MODEL)
    async with serving(tmp_path) as repository:
        live, shadow = repository.resolve(), shadow_of(repository)
        rows = await rows_of(live)
        monkeypatch.setattr(type(live.batcher), "depth", property(lambda _: 1))
        shadow.offer(IMAGES, rows)
        assert counted(repository)["dropped"] == 20
        assert shadow.is_idle


async def test_a_shadow_leaves_when_the_plan_says_so(tmp_path: Path) -> None:
    cast(tmp_path, MODEL)
    async with serving(tmp_path) as repository:
        live = repository.resolve()
        (tmp_path / "tiny" / "serving.json").write_text("{}")
        await repository.look()
        assert live.tap.audience is None
        assert repository.resolve().version == "2"
        assert not repository.resolve().is_background


async def test_requests_are_copied_after_their_answer(tmp_path: Path) -> None:
    """Through the application, as a client sees it."""
    cast(tmp_path, WRONG)
    application = Application(Settings(repository=tmp_path, threads=1, max_batch_size=4))
    async with asyncio.timeout(30):
        await application.load()
        transport = httpx.ASGITransport(application)
        async with httpx.AsyncClient(transport=transport, base_url="http://service") as client:
            for number, image in enumerate(IMAGES, start=1):
                answer = (await client.post("/predict", content=png(image))).json()
                assert answer["version"] == "1"
                await until(partial(has_counted, application.repository, number))
            report = (await client.get("/models/tiny/shadow")).json()
            assert report["dropped"] == report["failed"] == 0
        await application.close(1)
    batch = np.stack(IMAGES)
    live, other = softmax(MODEL.logits(batch)), softmax(WRONG.logits(batch))
    agreed = (live.argmax(axis=1) == other.argmax(axis=1)).mean()
    assert report["candidate"] == "2"
    assert report["agreement"] == pytest.approx(agreed)
    assert report["distance_mean"] == pytest.approx(0.5 * np.abs(live - other).sum(axis=1).mean(), rel=1e-4)


def test_a_comparison_of_other_labels(tmp_path: Path) -> None:
    class Named:
        def __init__(self, *labels: str) -> None:
            self.labels = labels
            self.metadata = type("Metadata", (), {"task": Task.MULTICLASS})

    compare = Comparison(Named("a", "b"), Named("b", "c"))  # type: ignore[arg-type]
    assert compare(np.array([1, 0], np.float32), np.array([0, 1], np.float32)) == (False, 1.0)
    assert compare(np.array([0, 1], np.float32), np.array([1, 0], np.float32)) == (True, 0.0)
