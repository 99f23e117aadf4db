"""The documented nginx in front of two real instances: TLS, restarts nobody notices, and what it hides."""

from __future__ import annotations

import asyncio
import os
import shutil
import ssl
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest

from tests.model_files import write_model
from tests.ports import free_port
from tests.service.test_process import TIMEOUT_S, command
from tests.service.test_tls import OPENSSL, self_signed
from tests.service.wire import IMAGE

NGINX = shutil.which("nginx") or shutil.which("nginx", path="/usr/sbin")
CONFIG = Path(__file__).parents[2] / "deploy" / "nginx" / "nginx.conf"

pytestmark = [
    pytest.mark.e2e,
    pytest.mark.skipif(
        not (NGINX and OPENSSL) or os.geteuid() != 0, reason="needs nginx and openssl, as root"
    ),
]


def lay_out(folder: Path, port: int, instances: list[int]) -> tuple[Path, ssl.SSLContext]:
    """The documented configuration at other addresses, and what trusts its certificate."""
    certificate, key = self_signed(folder)
    text = CONFIG.read_text()
    for said, meant in (
        ("listen 443 ssl", f"listen 127.0.0.1:{port} ssl"),
        ("/etc/foldserve/tls.crt", str(certificate)),
        ("/etc/foldserve/tls.key", str(key)),
        ("/run/foldserve-nginx.pid", str(folder / "pid")),
        ("127.0.0.1:8000", f"127.0.0.1:{instances[0]}"),
        ("127.0.0.1:8001", f"127.0.0.1:{instances[1]}"),
        ("rate=100r/s", "rate=100000r/s"),
    ):
        assert text.count(said) == 1, said
        text = text.replace(said, meant)
    path = folder / "nginx.conf"
    path.write_text(text)
    return path, ssl.create_default_context(cafile=certificate)


@asynccontextmanager
async def nginx(config: Path) -> AsyncIterator[None]:
    process = await asyncio.create_subprocess_exec(str(NGINX), "-c", str(config), "-g", "daemon off;")
    try:
        yield
    finally:
        process.terminate()
        await process.wait()


async def instance(repository: Path, port: int) -> asyncio.subprocess.Process:
    """One of the two, ready."""
    process = await asyncio.create_subprocess_exec(
        *command("--port", str(port), "--repository", str(repository)), stderr=asyncio.subprocess.DEVNULL
    )
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=TIMEOUT_S) as client:
        await answers(client, "/readyz")
    return process


async def answers(client: httpx.AsyncClient, path: str) -> None:
    """Wait until it does, with 200."""
    while True:
        try:
            if (await client.get(path)).status_code == 200:
                return
        except httpx.ConnectError:
            await asyncio.sleep(0.02)


async def all_answered_again(seen: list[Counter[int]]) -> None:
    """Wait until what was under way has ended: some must give up a connection before they try the other."""
    before = [statuses.total() for statuses in seen]
    while any(one.total() <= n for one, n in zip(seen, before, strict=True)):  # noqa: ASYNC110 - no event
        await asyncio.sleep(0.01)


async def test_restarting_both_instances_under_load_fails_no_request(tmp_path: Path) -> None:
    write_model(tmp_path / "models")
    port, *ports = (free_port() for _ in range(3))
    config, trust = lay_out(tmp_path, port, ports)
    seen: list[Counter[int]] = [Counter() for _ in range(8)]
    is_over = asyncio.Event()

    async def client(statuses: Counter[int]) -> None:
        async with httpx.AsyncClient(base_url=url, verify=trust, timeout=TIMEOUT_S) as session:
            while not is_over.is_set():
                statuses[(await session.post("/predict", content=IMAGE)).status_code] += 1

    url = f"https://127.0.0.1:{port}"
    async with asyncio.timeout(TIMEOUT_S), nginx(config):
        instances = [await instance(tmp_path / "models", each) for each in ports]
        async with httpx.AsyncClient(base_url=url, verify=trust, timeout=TIMEOUT_S) as probe:
            await answers(probe, "/v2/health/ready")
            clients = [asyncio.create_task(client(statuses)) for statuses in seen]
            for number, each in enumerate(ports):
                instances[number].terminate()
                assert await instances[number].wait() == 0
                instances[number] = await instance(tmp_path / "models", each)
                await all_answered_again(seen)
            is_over.set()
            await asyncio.gather(*clients)
            hidden = ["/metrics", "/readyz", "/models/tiny", "/v2/repository/index"]
            assert {(await probe.get(path)).status_code for path in hidden} == {404}
            assert "max-age" in (await probe.get("/")).headers["strict-transport-security"]
        for process in instances:
            process.terminate()
            assert await process.wait() == 0
    assert set().union(*seen) == {200}, seen
