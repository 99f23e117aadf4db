"""Repositories that lie elsewhere: what is fetched and when, and what a failing remote changes (nothing)."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import fsspec
import httpx
import pytest

from service.__main__ import main
from service.artifact import sidecar_path
from service.errors import Forbidden, InvalidConfiguration, InvalidParameter, NotReady, RemoteUnavailable
from service.repository import Changes, Repository
from service.repository.plan import read_plan
from service.settings import load_settings
from tests.model_files import TinyModel, png, write_model
from tests.service.fakes import until
from tests.service.repository.distant import BUCKET, Distant, Handler, ObjectHandler, distant
from tests.service.repository.running import exposition, serving, started, states
from tests.service.test_process import TIMEOUT_S, running

KINDS = ("file", "http", "s3", "gs")


@pytest.fixture
def remote(tmp_path: Path) -> Path:
    """The folder behind every server, with one good version."""
    write_model(tmp_path / "remote", version="1")
    return tmp_path / "remote"


@pytest.fixture
def cache(tmp_path: Path) -> Path:
    return tmp_path / "cache"


@pytest.fixture
def server(remote: Path) -> Iterator[Distant]:
    """A web server."""
    with distant(remote) as server:
        yield server


@pytest.fixture
def shelf(remote: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Distant]:
    """An object store, at `S3`."""
    with distant(remote, ObjectHandler) as server:
        for name, value in _keys(server).items():
            monkeypatch.setenv(name, value)
        yield server


def files(folder: Path, prefix: str = "") -> list[str]:
    return sorted(path.name for path in folder.iterdir() if path.name.startswith(prefix))


S3 = f"s3://{BUCKET}"


def _keys(server: Distant) -> dict[str, str]:
    """What leads the clients of S3 and GCS to this server."""
    return {
        "AWS_ENDPOINT_URL": server.address,
        "AWS_SKIP_SIGNATURE": "true",
        "AWS_REGION": "us-east-1",
        "GOOGLE_BASE_URL": server.address,
        "GOOGLE_SKIP_SIGNATURE": "true",
    }


@contextmanager
def served_over(kind: str, remote: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """The address at which the folder can be had."""
    if kind == "file":
        yield f"file://{remote}"
        return
    with distant(remote, Handler if kind == "http" else ObjectHandler) as server:
        for name, value in _keys(server).items():
            monkeypatch.setenv(name, value)
        yield server.address if kind == "http" else f"{kind}://{BUCKET}"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_version_that_is_put_there_takes_over(
    kind: str, remote: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served_over(kind, remote, monkeypatch) as url:
        async with serving(cache, origin=url) as repository:
            assert repository.resolve().version == "1"
            write_model(remote, version="3", model=TinyModel.make(seed=3))
            write_model(remote, version="2", fault="wrong_logits")
            await repository.look()
            assert repository.resolve().version == "3"
            assert not (cache / "tiny/2").exists(), "nobody needs it"


async def test_a_store_in_memory_is_one_as_well(remote: Path, cache: Path) -> None:
    system, folder = fsspec.filesystem("memory"), f"/{uuid.uuid4().hex}"
    system.put(str(remote), folder, recursive=True)
    async with serving(cache, origin=f"memory:/{folder}") as repository:
        assert repository.resolve().version == "1"


async def test_what_has_not_changed_is_not_fetched_again(remote: Path, cache: Path, server: Distant) -> None:
    async with serving(cache, origin=server.address) as repository:
        before = repository.resolve()
        await repository.look()
        await repository.look(is_asked=True)
        assert repository.resolve() is before
    async with serving(cache, origin=server.address):
        assert len(server.fetched()) == 1


async def test_the_same_bytes_with_another_time_are_not_fetched_again(
    remote: Path, cache: Path, server: Distant
) -> None:
    async with serving(cache, origin=server.address) as repository:
        os.utime(remote / "tiny/1/model.onnx", (1, 1))
        await repository.look(is_asked=True)
        assert len(server.fetched()) == 1


async def test_other_bytes_under_the_same_version_replace_it(
    remote: Path, cache: Path, server: Distant
) -> None:
    async with serving(cache, origin=server.address) as repository:
        before = repository.resolve()
        write_model(remote, version="1", model=TinyModel.make(seed=9))
        await repository.look(is_asked=True)
        assert repository.resolve() is not before
        assert len(server.fetched()) == 2


async def test_an_interrupted_fetch_leaves_the_old_version_and_is_tried_again(
    remote: Path, cache: Path, server: Distant, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(cache, origin=server.address) as repository:
        server.fault = "cut"
        write_model(remote, version="2")
        for _ in range(3):
            await repository.look()
        assert repository.resolve().version == "1"
        assert "cannot read" in states(repository)["2"]
        assert "the next look tries again" in states(repository)["2"]
        assert 'foldserve_remote_failures_total{operation="fetch"} 3.0' in exposition(repository)
        assert sum("does not serve" in record.message for record in caplog.records) == 1
        assert not files(cache, ".fetching-")
        server.fault = None
        await repository.look()
        assert repository.resolve().version == "2"


@pytest.mark.parametrize("kind", KINDS)
async def test_a_truncated_upload_is_refused_until_it_is_mended(
    kind: str, remote: Path, cache: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with served_over(kind, remote, monkeypatch) as url:
        async with serving(cache, origin=url) as repository:
            path = write_model(remote, version="2")
            whole = path.read_bytes()
            path.write_bytes(whole[: len(whole) // 2])
            for _ in range(3):
                await repository.look()
            assert repository.resolve().version == "1"
            assert "its sidecar promises" in states(repository)["2"]
            assert 'result="invalid_file"} 1.0' in exposition(repository), "not tried again and again"
            path.write_bytes(whole)
            await repository.look()
            assert repository.resolve().version == "2"


async def test_a_version_without_a_checksum_is_none(remote: Path, cache: Path, shelf: Distant) -> None:
    async with serving(cache, origin=S3) as repository:
        sidecar = sidecar_path(write_model(remote, version="2"))
        text = sidecar.read_text()
        sidecar.unlink()
        await repository.look()
        assert states(repository)["2"].endswith("its files have not settled yet")
        await repository.look()
        assert states(repository)["2"].endswith("no model.onnx.sha256 in it")
        assert repository.resolve().version == "1"
        sidecar.write_text(text)
        await repository.look()
        assert repository.resolve().version == "2"


async def test_a_remote_that_vanishes_changes_nothing(
    cache: Path, server: Distant, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(cache, origin=server.address, reload_interval_s=0.01) as repository:
        server.fault = "gone"
        counted = "foldserve_remote_failures_total"
        await until(lambda: f'{counted}{{operation="look"}} 3.0' in exposition(repository))
        assert repository.resolve().version == "1"
        assert sum("cannot be looked at" in record.message for record in caplog.records) == 1
        assert "503" in caplog.text


async def test_a_process_that_starts_without_the_remote_serves_what_was_fetched(
    remote: Path, cache: Path, shelf: Distant, caplog: pytest.LogCaptureFixture
) -> None:
    write_model(remote, version="2")
    async with serving(cache, origin=S3) as repository:
        await Changes(repository).roll_back("tiny", "1")
    shelf.fault = "gone"
    async with serving(cache, origin=S3) as repository:
        before = repository.resolve()
        assert before.version == "1", "the plan was kept as well"
        assert "what was fetched before serves" in caplog.text
        shelf.fault = None
        await repository.look()
        assert repository.resolve() is before, "it is what lies there, so it is not loaded again"


async def test_without_the_remote_and_without_a_copy_nothing_starts(cache: Path, shelf: Distant) -> None:
    shelf.fault = "gone"
    with pytest.raises(RemoteUnavailable, match=f"cannot list {S3}"):
        await started(cache, origin=S3)


async def test_a_damaged_copy_is_fetched_again(cache: Path, server: Distant) -> None:
    async with serving(cache, origin=server.address):
        (cache / "tiny/1/model.onnx").write_bytes(b"damaged")
    async with serving(cache, origin=server.address) as repository:
        assert repository.resolve().version == "1"
        assert len(server.fetched()) == 2


@pytest.mark.parametrize("left", ["model.onnx.sha256", "model.onnx.origin"])
async def test_a_fetch_that_was_killed_leaves_a_cache_that_loads(
    remote: Path, cache: Path, server: Distant, left: str
) -> None:
    async with serving(cache, origin=server.address):
        (cache / "tiny/1" / left).unlink()
        (cache / ".fetching-killed").mkdir()
    async with serving(cache, origin=server.address) as repository:
        assert repository.resolve().version == "1"
        assert (cache / "tiny/1" / left).is_file()
        assert not (cache / ".fetching-killed").exists()
        assert len(server.fetched()) == 1


async def test_what_the_remote_drops_leaves_the_cache_with_the_next_fetch(
    remote: Path, cache: Path, server: Distant
) -> None:
    async with serving(cache, origin=server.address) as repository:
        shutil.rmtree(remote / "tiny/1")
        await repository.look()
        assert repository.resolve().version == "1"
        write_model(remote, version="2")
        await repository.look()
        assert repository.resolve().version == "2"
        assert not (cache / "tiny/1").exists()


async def test_no_name_leads_out_of_the_cache(tmp_path: Path, cache: Path) -> None:
    """A server may list what it likes: links up, absolute ones, names with slashes in disguise."""
    write_model(tmp_path / "remote", version="1")
    links = ("../../etc/", "/etc/", "..%2f..%2fetc/", "%2e%2e/", "tiny/../../x/", ".hidden/", "a b/", "tiny/")
    page = "".join(f'<a href="{link}">x</a>' for link in links)
    (tmp_path / "remote/index.html").write_text(f"<html>{page}</html>")
    versions = "".join(f'<a href="{link}">x</a>' for link in ("../9/", "..%2f9/", "01/", "1e3/", "1/"))
    (tmp_path / "remote/tiny/index.html").write_text(f"<html>{versions}</html>")
    with distant(tmp_path / "remote") as server:
        async with serving(cache, origin=server.address) as repository:
            assert states(repository) == {"1": "READY"}
    assert files(tmp_path) == ["cache", "remote"]
    assert files(cache) == [".lock", "tiny"]


async def test_a_rollback_is_written_where_every_replica_finds_it(
    remote: Path, tmp_path: Path, shelf: Distant
) -> None:
    write_model(remote, version="2")
    async with (
        serving(tmp_path / "one", origin=S3) as one,
        serving(tmp_path / "other", origin=S3) as other,
    ):
        await Changes(one).roll_back("tiny")
        assert one.resolve().version == "1"
        assert read_plan(remote / "tiny").version == "1"
        await other.look()
        assert other.resolve().version == "1"


async def _change(repository: Repository) -> None:
    await Changes(repository).roll_back("tiny", "1")


async def test_where_nothing_can_be_written_a_change_is_refused(
    remote: Path, cache: Path, server: Distant
) -> None:
    write_model(remote, version="2")
    async with serving(cache, origin=server.address) as repository:
        with pytest.raises(Forbidden, match="over http it is only read"):
            await _change(repository)
        assert repository.resolve().version == "2"


async def test_without_the_remote_a_change_is_refused(remote: Path, cache: Path, shelf: Distant) -> None:
    write_model(remote, version="2")
    async with serving(cache, origin=S3) as repository:
        shelf.is_read_only = True
        with pytest.raises(NotReady, match="cannot be changed now: cannot write"):
            await _change(repository)
        shelf.fault = "gone"
        with pytest.raises(NotReady, match="cannot be changed now: cannot list"):
            await _change(repository)
        assert repository.resolve().version == "2"
        assert 'remote_failures_total{operation="write"} 1.0' in exposition(repository)


async def test_a_plan_that_is_none_changes_nothing(remote: Path, cache: Path, server: Distant) -> None:
    async with serving(cache, origin=server.address) as repository:
        (remote / "tiny/serving.json").write_text('{"version": 7}')
        await repository.look()
        assert repository.resolve().version == "1"
        with pytest.raises(InvalidParameter, match=r"serving\.json: version"):
            await _change(repository)


def test_the_commands_change_a_remote_repository(
    remote: Path, cache: Path, shelf: Distant, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(remote, version="2")
    place = ("--repository", S3, "--repository-cache", str(cache), "--threads", "1")
    assert main(["rollback", "tiny", *place]) == 0
    assert capsys.readouterr().out == f'{S3}/tiny/serving.json: {{"version":"1"}}\n'
    assert read_plan(remote / "tiny").version == "1"
    shelf.is_read_only = True
    assert main(["route", "tiny", "--alias", "old=1", *place]) == 1
    assert "cannot write" in capsys.readouterr().err


def test_the_check_up_looks_at_a_remote_repository(
    remote: Path, cache: Path, shelf: Distant, capsys: pytest.CaptureFixture[str]
) -> None:
    write_model(remote, version="2", fault="wrong_logits")
    place = ("--repository", S3, "--repository-cache", str(cache), "--threads", "1", "--port", "0")
    main(["doctor", *place])
    said = capsys.readouterr().out
    assert f"{S3}: tiny" in said
    assert "version 1 serves" in said
    assert "refused: version 2" in said
    shelf.fault = "gone"
    shutil.rmtree(cache)
    main(["doctor", *place])
    assert f"cannot list {S3}" in capsys.readouterr().out


def test_each_address_has_a_folder_of_its_own(tmp_path: Path) -> None:
    def folder(address: str) -> Path:
        return load_settings(["--repository", address, "--repository-cache", str(tmp_path)]).repository_folder

    assert folder("s3://a/models").parent == tmp_path
    assert folder("s3://a/models") == folder("s3://a/models/") != folder("s3://b/models")
    assert folder("models") == Path("models")


@pytest.mark.parametrize("address", ["https://user:secret@host/models", "s3://", "https://host/?key=secret"])
def test_an_address_with_a_key_in_it_is_refused(address: str) -> None:
    with pytest.raises(InvalidConfiguration, match="an address is protocol://place/folder"):
        load_settings(["--repository", address])


async def test_an_unknown_protocol_is_refused(cache: Path) -> None:
    with pytest.raises(InvalidConfiguration, match=r"over 'ftp://'; there are s3, gs"):
        await started(cache, origin="ftp://host/models")


async def test_what_is_not_installed_is_named(cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "obstore.fsspec", None)
    with pytest.raises(InvalidConfiguration, match=r"obstore\.fsspec.*pip install 'foldserve\[remote\]'"):
        await started(cache, origin=S3)


@pytest.mark.e2e
async def test_a_service_outlives_its_web_server(remote: Path, tmp_path: Path) -> None:
    """Real processes: two workers follow a plain web server, and go on serving when it is killed."""
    web = await asyncio.create_subprocess_exec(
        *(sys.executable, "-u", "-m", "http.server", "0", "--bind", "127.0.0.1", "--directory", str(remote)),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert web.stdout is not None
    port = (await asyncio.wait_for(web.stdout.readline(), TIMEOUT_S)).split()[5].decode()
    url, cache = f"http://127.0.0.1:{port}", str(tmp_path / "cache")
    flags = ("--reload-interval-s", "0.1", "--repository-cache", cache)
    image = png(TinyModel.make().image(1))

    async def version(client: httpx.AsyncClient) -> str:
        answer = await client.post("/predict", content=image)
        assert answer.status_code == 200
        return str(answer.json()["version"])

    async with (
        running(url, *flags, workers=2) as service,
        asyncio.timeout(TIMEOUT_S),
        httpx.AsyncClient(base_url=service.url) as client,
    ):
        write_model(remote, version="2")
        while await version(client) != "2":  # noqa: ASYNC110 - no event reaches here
            await asyncio.sleep(0.01)
        web.kill()
        await web.wait()
        failed = 'foldserve_remote_failures_total{operation="look"}'
        while failed not in (await client.get("/metrics")).text:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
        assert await version(client) == "2"
    async with (
        running(url, *flags, workers=2) as service,
        asyncio.timeout(TIMEOUT_S),
        httpx.AsyncClient(base_url=service.url) as client,
    ):
        assert await version(client) == "2"
