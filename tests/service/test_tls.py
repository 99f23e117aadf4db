"""HTTPS from the service itself: with one process and with several, and what is said of a bad certificate."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from service.errors import InvalidConfiguration
from service.server import tls_context
from service.settings import Settings
from tests.model_files import write_model
from tests.service.test_process import TIMEOUT_S, run, started
from tests.service.wire import IMAGE

OPENSSL = shutil.which("openssl")
needs_openssl = pytest.mark.skipif(OPENSSL is None, reason="needs openssl to make a certificate")


def self_signed(folder: Path, *options: str) -> tuple[Path, Path]:
    """A certificate for this machine and its key."""
    certificate, key = folder / "tls.crt", folder / "tls.key"
    subprocess.run(  # noqa: S603 - found on this system
        [
            *(str(OPENSSL), "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1"),
            *("-keyout", str(key), "-out", str(certificate), "-subj", "/CN=127.0.0.1"),
            *("-addext", "subjectAltName=IP:127.0.0.1", *(options or ("-nodes",))),
        ],
        check=True,
        capture_output=True,
        timeout=30,
    )
    return certificate, key


@needs_openssl
@pytest.mark.e2e
@pytest.mark.parametrize("workers", ["1", "2"])
async def test_the_port_speaks_https_and_nothing_else(tmp_path: Path, workers: str) -> None:
    write_model(tmp_path / "models")
    certificate, key = self_signed(tmp_path)
    flags = ("--tls-certificate-file", str(certificate), "--tls-key-file", str(key), "--workers", workers)
    trust = ssl.create_default_context(cafile=certificate)
    async with asyncio.timeout(TIMEOUT_S), started(tmp_path / "models", *flags) as service:
        assert service.url.startswith("https://")
        async with httpx.AsyncClient(base_url=service.url, verify=trust, timeout=TIMEOUT_S) as client:
            while (await client.get("/readyz")).status_code != 200:  # noqa: ASYNC110 - no event reaches here
                await asyncio.sleep(0.02)
            assert (await client.post("/predict", content=IMAGE)).status_code == 200
            async with httpx.AsyncClient(base_url=service.url.replace("https", "http")) as plain:
                with pytest.raises(httpx.TransportError):
                    await plain.get("/readyz")
        service.process.terminate()
        assert await service.process.wait() == 0


@needs_openssl
@pytest.mark.e2e
async def test_who_does_not_shake_hands_is_hung_up_on(tmp_path: Path) -> None:
    write_model(tmp_path / "models")
    certificate, key = self_signed(tmp_path)
    flags = (
        "--tls-certificate-file",
        str(certificate),
        "--tls-key-file",
        str(key),
        "--header-timeout-ms",
        "100",
    )
    async with asyncio.timeout(TIMEOUT_S), started(tmp_path / "models", *flags) as service:
        address = urlsplit(service.url)
        for said in (b"", b"\x16\x03\x01"):
            reader, writer = await asyncio.open_connection(address.hostname, address.port)
            writer.write(said)
            assert await reader.read() == b""
            writer.close()


@needs_openssl
def test_what_cannot_be_used_is_named(tmp_path: Path) -> None:
    certificate, key = self_signed(tmp_path)
    (tmp_path / "other").mkdir()
    _, other_key = self_signed(tmp_path / "other")
    (tmp_path / "closed").mkdir()
    closed, closed_key = self_signed(tmp_path / "closed", "-passout", "pass:secret")
    assert tls_context(Settings()) is None
    assert tls_context(Settings(tls_certificate_file=certificate, tls_key_file=key)) is not None
    for chain, its_key, words in (
        (certificate, other_key, "mismatch"),
        (tmp_path / "none", None, "No such file"),
        (closed, closed_key, "has a passphrase"),
    ):
        with pytest.raises(InvalidConfiguration, match=words):
            tls_context(Settings(tls_certificate_file=chain, tls_key_file=its_key))


def test_a_missing_certificate_ends_with_one_line(tmp_path: Path) -> None:
    result = run("--port", "0", "--tls-certificate-file", str(tmp_path / "none"))
    assert result.returncode == 1
    assert result.stderr.count("\n") == 1
    assert "no certificate and key to serve with" in result.stderr


def test_a_key_alone_is_refused() -> None:
    result = run("--tls-key-file", "key.pem")
    assert (result.returncode, "tls_certificate_file" in result.stderr) == (2, True)
