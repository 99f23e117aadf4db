"""Each client's script, run by the interpreter that has the clients, against a real process."""

from __future__ import annotations

import asyncio
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest

from service.access import Scope, make_key
from tests.model_files import TinyModel, png, write_model
from tests.service.test_process import Service, running

pytestmark = pytest.mark.e2e

TIMEOUT_S = 90.0
HERE = Path(__file__).parent
LABELS = ("cat", "dog", "bird")
SCRIPTS = {"triton_http": "http", "triton_grpc": "grpc", "kserve_http": "http", "kserve_grpc": "grpc"}


@pytest.fixture(scope="module")
def interpreter() -> str:
    """The Python that has the clients; `make clients` makes it."""
    path = os.environ.get("CLIENTS_PYTHON", str(HERE.parents[1] / ".venv-clients" / "bin" / "python"))
    if not Path(path).exists():
        pytest.skip("the clients are not installed; `make clients` installs them")
    return path


def expected() -> dict[str, object]:
    """Inputs and what must come of them, computed beside the service."""
    model = TinyModel.make()
    pixels = np.stack([model.image(seed) for seed in range(8)])
    logits = model.logits(pixels).astype(np.float64)
    exponentials = np.exp(logits - logits.max(axis=1, keepdims=True))
    return {
        "pixels": pixels.tolist(),
        "images": [png(image).hex() for image in pixels],
        "logits": logits.tolist(),
        "probabilities": (exponentials / exponentials.sum(axis=1, keepdims=True)).tolist(),
        "labels": [LABELS[index] for index in logits.argmax(axis=1)],
    }


async def address(service: Service, protocol: str) -> str:
    """Of a service that was started with a gRPC port."""
    if protocol == "http":
        return service.url.removeprefix("http://")
    assert service.process.stderr is not None
    line = (await service.process.stderr.readline()).decode()
    port = re.search(r"listening for gRPC on port (\d+)", line)
    assert port is not None, line
    return f"127.0.0.1:{port[1]}"


async def ask(interpreter: str, script: str, *arguments: str) -> None:
    """Run a client's script; it says what is wrong."""
    asked = await asyncio.create_subprocess_exec(
        *(interpreter, str(HERE / f"{script}.py"), *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    said, _ = await asked.communicate()
    assert asked.returncode == 0, said.decode()


@pytest.mark.parametrize("script", SCRIPTS)
async def test_an_unmodified_client_gets_what_it_expects(
    interpreter: str, script: str, tmp_path: Path
) -> None:
    write_model(tmp_path / "models", model=TinyModel.make(), labels=LABELS)
    path = tmp_path / "expected.json"
    path.write_text(json.dumps(expected()))
    async with running(tmp_path / "models", "--grpc-port", "0") as service, asyncio.timeout(TIMEOUT_S):
        await ask(interpreter, script, await address(service, SCRIPTS[script]), str(path))


@pytest.mark.parametrize("protocol", ["http", "grpc"])
async def test_tritons_clients_load_and_unload(interpreter: str, protocol: str, tmp_path: Path) -> None:
    for name in ("tiny", "other"):
        write_model(tmp_path / "models", name=name)
    secret, line = make_key("operator", [Scope.ADMIN])
    (tmp_path / "keys").write_text(line)
    flags = ("--grpc-port", "0", "--api-keys-file", str(tmp_path / "keys"))
    async with running(tmp_path / "models", *flags) as service, asyncio.timeout(TIMEOUT_S):
        await ask(interpreter, "triton_repository", protocol, await address(service, protocol), secret)
