"""The real process: a publication that is killed, and several workers that follow one operator."""

from __future__ import annotations

import asyncio
import json
import sys
from pathlib import Path

import httpx
import pytest

from service.access import Scope, make_key
from service.repository.plan import read_plan
from tests.model_files import TinyModel, png, write_model
from tests.service.repository.running import serving
from tests.service.test_process import TIMEOUT_S, running

pytestmark = pytest.mark.e2e

IMAGE = png(TinyModel.make().image(1))

# Publishes version 2 and stops at the given step, as long as it takes to be killed.
_PUBLISHER = """
import os, shutil, sys, time
from pathlib import Path
source, target, stop_at = Path(sys.argv[1]), Path(sys.argv[2]), sys.argv[3]
def step(name):
    if name == stop_at:
        print(name, flush=True)
        time.sleep(60)
staged = target.with_name(".publishing-1")
step("begin")
staged.mkdir()
step("empty")
content = (source / "model.onnx").read_bytes()
with (staged / "model.onnx").open("wb") as file:
    file.write(content[: len(content) // 2])
    file.flush()
    step("half")
    file.write(content[len(content) // 2 :])
shutil.copy(source / "model.onnx.sha256", staged)
step("whole")
os.rename(staged, target)
step("published")
"""


@pytest.mark.parametrize(
    ("stop_at", "serves"), [("begin", "1"), ("empty", "1"), ("half", "1"), ("whole", "1"), ("published", "2")]
)
async def test_a_publication_that_is_killed_leaves_a_repository_that_starts(
    tmp_path: Path, stop_at: str, serves: str
) -> None:
    write_model(tmp_path / "models", version="1")
    write_model(tmp_path / "source", version="2")
    arguments = (str(tmp_path / "source/tiny/2"), str(tmp_path / "models/tiny/2"), stop_at)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", _PUBLISHER, *arguments, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(TIMEOUT_S):
        assert (await process.stdout.readline()).decode().strip() == stop_at
        process.kill()
        assert await process.wait() < 0
    async with serving(tmp_path / "models") as repository:
        assert repository.resolve().version == serves
        await repository.look()
        await repository.look()
        assert repository.resolve().version == serves


async def versions_seen(url: str) -> set[str]:
    """What several connections, that is, both workers, answer with."""

    async def ask() -> str:
        async with httpx.AsyncClient(base_url=url, timeout=TIMEOUT_S) as client:
            return str((await client.post("/predict", content=IMAGE, headers=_predict)).json()["version"])

    return set(await asyncio.gather(*(ask() for _ in range(12))))


_admin_secret, _admin_line = make_key("operator", [Scope.ADMIN, Scope.PREDICT])
_predict = {"x-api-key": _admin_secret}


async def test_all_workers_follow_when_the_answer_comes(tmp_path: Path) -> None:
    root = tmp_path / "models"
    for version in ("1", "2"):
        write_model(root, version=version)
    (tmp_path / "keys").write_text(_admin_line + "\n")
    flags = ("--workers", "2", "--api-keys-file", str(tmp_path / "keys"), "--reload-interval-s", "0")
    async with (
        running(root, *flags) as service,
        asyncio.timeout(TIMEOUT_S),
        httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT_S, headers=_predict) as client,
    ):
        assert await versions_seen(service.url) == {"2"}
        assert (await client.post("/models/tiny/rollback")).status_code == 200
        assert await versions_seen(service.url) == {"1"}
        assert read_plan(root / "tiny").version == "1"
        write_model(root, version="3", fault="wrong_logits")
        assert (await client.post("/models/tiny/rollback", params={"to": "3"})).status_code == 400
        assert await versions_seen(service.url) == {"1"}


# Asks over one connection until its input ends; then says how often, and what answered.
_CLIENT = """
import collections, http.client, json, sys, threading
from urllib.parse import urlsplit
url, key, path = sys.argv[1:]
image = open(path, "rb").read()
connection = http.client.HTTPConnection(urlsplit(url).netloc, timeout=30)
seen = collections.Counter()
ended = threading.Event()
threading.Thread(target=lambda: (sys.stdin.read(), ended.set()), daemon=True).start()
print("asking", flush=True)
while not ended.is_set():
    connection.request("POST", "/predict", image, {"x-api-key": key})
    answer = connection.getresponse()
    body = json.loads(answer.read())
    first = body.get("predictions", [{}])[0]
    seen[f"{answer.status} {body.get('version')} {first.get('label')} {first.get('probability', 0):.4f}"] += 1
print(json.dumps(seen))
"""
_CLIENTS = 4
_ROLLBACKS = 10


async def test_rolling_back_under_load_fails_no_request_and_mixes_no_versions(tmp_path: Path) -> None:
    root = tmp_path / "models"
    for version in ("1", "2"):
        write_model(root, version=version, model=TinyModel.make(seed=int(version)))
    (tmp_path / "keys").write_text(_admin_line + "\n")
    (tmp_path / "image.png").write_bytes(IMAGE)
    flags = ("--api-keys-file", str(tmp_path / "keys"), "--reload-interval-s", "0.05")
    async with (
        running(root, *flags, workers=2) as service,
        asyncio.timeout(TIMEOUT_S),
        httpx.AsyncClient(base_url=service.url, timeout=TIMEOUT_S, headers=_predict) as client,
    ):
        arguments = (service.url, _admin_secret, str(tmp_path / "image.png"))
        clients = [
            await asyncio.create_subprocess_exec(
                *(sys.executable, "-c", _CLIENT, *arguments),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
            )
            for _ in range(_CLIENTS)
        ]
        for each in clients:
            assert each.stdout is not None
            await each.stdout.readline()
        for number in range(_ROLLBACKS):
            to = {"to": "latest"} if number % 2 else {}
            answer = await client.post("/models/tiny/rollback", params=to)
            assert answer.status_code == 200, answer.text
        reports = [json.loads((await each.communicate(b""))[0]) for each in clients]
    answers = {line for report in reports for line in report}
    # One answer of each version, over all clients and workers: no failure, and nothing of another version.
    assert sorted(line.split()[:2] for line in answers) == [["200", "1"], ["200", "2"]]
