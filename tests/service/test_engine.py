"""The engine: hardware limits, provider rules, buckets, warm-up and self-test."""

from __future__ import annotations

import logging
import os
import weakref
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
from onnxruntime.capi import onnxruntime_pybind11_state as ort_errors

from service.artifact import parse_metadata
from service.engine import (
    Engine,
    EngineOptions,
    Provider,
    sessions,
)
from service.engine.binding import Bindings
from service.engine.faults import POISONING_CUDA_ERRORS, needs_new_process
from service.engine.pinned import page_locked
from service.engine.providers import NAMES, chain, missing_part
from service.errors import (
    EngineLost,
    InferenceFailed,
    InvalidFile,
    LoadFailed,
    ProviderUnavailable,
    SelfTestFailed,
)
from service.hardware import available_cpus, available_memory_bytes, has_driver, has_int8_instructions
from service.repository import warm_up
from tests.model_files import TinyModel, write_model

if TYPE_CHECKING:
    import ctypes

OPTIONS = EngineOptions(provider=Provider.CPU, threads=1, max_batch_size=6)
ALLOWED = len(os.sched_getaffinity(0))
needs_no_gpu = pytest.mark.skipif(has_driver(), reason="there is an NVIDIA driver here")


def machine(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


@pytest.mark.parametrize(
    ("files", "cpus"),
    [
        ({}, ALLOWED),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "max 100000\n"}, ALLOWED),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "50000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "190000 100000\n"}, 1),
        ({"proc/self/cgroup": "0::/\n", "sys/fs/cgroup/cpu.max": "9900000 100000\n"}, ALLOWED),
        # The parent's quota counts as well.
        (
            {
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/cpu.max": "100000 100000",
                "sys/fs/cgroup/a/b/cpu.max": "max 100000",
            },
            1,
        ),
        # The path is the host's, the mount is the container's.
        ({"proc/self/cgroup": "0::/docker/1f\n", "sys/fs/cgroup/cpu.max": "100000 100000\n"}, 1),
        # Version 1 of cgroups.
        (
            {
                "proc/self/cgroup": "4:memory:/x\n1:cpu,cpuacct:/x\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_quota_us": "100000\n",
                "sys/fs/cgroup/cpu,cpuacct/x/cpu.cfs_period_us": "100000\n",
            },
            1,
        ),
        (
            {
                "proc/self/cgroup": "1:cpu:/\n",
                "sys/fs/cgroup/cpu/cpu.cfs_quota_us": "-1\n",
                "sys/fs/cgroup/cpu/cpu.cfs_period_us": "100000\n",
            },
            ALLOWED,
        ),
    ],
)
def test_cpus_by_affinity_and_quota(tmp_path: Path, files: dict[str, str], cpus: int) -> None:
    assert available_cpus(machine(tmp_path, files)) == cpus


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({}, None),
        ({"proc/meminfo": "MemTotal:  1000 kB\nMemFree: 9 kB\n"}, 1_024_000),
        (
            {
                "proc/meminfo": "MemTotal: 1000 kB\n",
                "proc/self/cgroup": "0::/a/b\n",
                "sys/fs/cgroup/a/memory.max": "5000\n",
                "sys/fs/cgroup/a/b/memory.max": "max\n",
            },
            5000,
        ),
        (
            {
                "proc/self/cgroup": "3:memory:/x\n",
                "sys/fs/cgroup/memory/x/memory.limit_in_bytes": "7000\n",
            },
            7000,
        ),
    ],
)
def test_memory_by_machine_and_limit(tmp_path: Path, files: dict[str, str], expected: int | None) -> None:
    assert available_memory_bytes(machine(tmp_path, files)) == expected


@pytest.mark.parametrize(
    ("cpuinfo", "expected"),
    [
        ("flags\t\t: fpu avx2 avx512_vnni\n", True),
        ("flags\t\t: fpu avx2\n", False),
        ("Features\t: fp asimd asimddp\n", True),
        ("", False),
    ],
)
def test_int8_instructions(tmp_path: Path, cpuinfo: str, expected: bool) -> None:
    assert has_int8_instructions(machine(tmp_path, {"proc/cpuinfo": cpuinfo})) is expected


@pytest.mark.parametrize(
    ("max_batch_size", "buckets"), [(1, (1,)), (2, (1, 2)), (6, (1, 2, 4, 6)), (64, (1, 2, 4, 8, 16, 32, 64))]
)
def test_buckets_are_powers_of_two_and_the_limit(max_batch_size: int, buckets: tuple[int, ...]) -> None:
    assert EngineOptions(max_batch_size=max_batch_size).buckets == buckets


def test_every_chain_begins_with_its_provider_and_ends_with_the_cpu() -> None:
    for kind, name in NAMES.items():
        assert chain(kind)[0][0] == name
        assert chain(kind)[-1][0] == NAMES["cpu"]


def test_graphs_and_caches_are_asked_for_by_name(tmp_path: Path) -> None:
    assert dict(chain("cuda", cuda_graphs=True))[NAMES["cuda"]]["enable_cuda_graph"] == "1"
    assert "enable_cuda_graph" not in dict(chain("cuda"))[NAMES["cuda"]]
    options = dict(chain("tensorrt", cuda_graphs=True, tensorrt_cache=tmp_path))
    assert options[NAMES["tensorrt"]]["trt_engine_cache_path"] == str(tmp_path)
    assert options[NAMES["tensorrt"]]["trt_cuda_graph_enable"] == "1"
    assert "enable_cuda_graph" not in options[NAMES["cuda"]]
    assert dict(chain("cpu", cuda_graphs=True, tensorrt_cache=tmp_path)) == {NAMES["cpu"]: {}}


def test_tf32_is_off() -> None:
    assert dict(chain("cuda"))["CUDAExecutionProvider"]["use_tf32"] == "0"


@needs_no_gpu
@pytest.mark.parametrize("provider", [Provider.CUDA, Provider.TENSORRT])
def test_a_demanded_provider_never_falls_back(tmp_path: Path, provider: Provider) -> None:
    with pytest.raises(ProviderUnavailable, match=rf"{provider} was asked for, but no NVIDIA driver"):
        Engine.load(write_model(tmp_path), EngineOptions(provider=provider))


def test_a_session_that_got_another_provider_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    path = write_model(tmp_path)
    monkeypatch.setattr(sessions, "missing_part", lambda kind: None)
    with pytest.raises(ProviderUnavailable, match="cuda was asked for"):
        Engine.load(path, EngineOptions(provider=Provider.CUDA))


@needs_no_gpu
def test_without_a_driver_auto_is_the_cpu_and_says_nothing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    engine = Engine.load(write_model(tmp_path), EngineOptions(threads=1))
    assert (engine.active, engine.is_fallback) == ("cpu", False)
    assert not caplog.records


def test_with_a_driver_that_does_not_work_auto_warns_with_the_cause(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(sessions, "has_driver", lambda: True)
    monkeypatch.setattr(sessions, "missing_part", lambda kind: "libcublasLt.so.13 is not there")
    with caplog.at_level(logging.WARNING):
        engine = Engine.load(write_model(tmp_path), EngineOptions(threads=1))
    assert (engine.active, engine.is_fallback) == ("cpu", True)
    assert engine.requested is Provider.AUTO
    assert "libcublasLt.so.13 is not there" in caplog.text


@needs_no_gpu
def test_what_is_missing_is_named() -> None:
    assert missing_part("cpu") is None
    fault = missing_part("cuda")
    assert fault is not None
    assert "libcuda" in fault or "built without" in fault


def test_runs_any_batch_up_to_the_limit(tmp_path: Path) -> None:
    model = TinyModel.make()
    engine = Engine.load(write_model(tmp_path, model=model), OPTIONS)
    for size in range(1, 7):
        pixels = np.stack([model.image(seed) for seed in range(size)])
        logits, probabilities = engine.run(pixels)
        np.testing.assert_allclose(logits, model.logits(pixels), rtol=1e-5, atol=1e-5)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)


def test_padding_to_a_bucket_changes_no_result(tmp_path: Path) -> None:
    model = TinyModel.make()
    engine = Engine.load(write_model(tmp_path, model=model), OPTIONS)
    staging, classes = np.full((6, *engine.input_shape), 99, np.uint8), len(engine.metadata.labels)
    bindings = Bindings(engine._session, "cpu", staging, classes, engine.buckets)
    kept = []
    for size in (6, *range(1, 7)):
        pixels = np.stack([model.image(seed) for seed in range(size)])
        logits, probabilities = bindings.run(pixels)
        assert logits.shape == probabilities.shape == (size, classes)
        np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)
        kept.append((logits, model.logits(pixels)))
    for logits, expected in kept:  # the buffers were used again, the answers are not theirs
        np.testing.assert_allclose(logits, expected, rtol=1e-5, atol=1e-5)


class ScriptedDriver:
    """CUDA's driver, as far as locking memory goes; calls end with the status that was set for them."""

    def __init__(self, **statuses: int) -> None:
        self.statuses = statuses
        self.calls: list[str] = []

    def __getattr__(self, name: str) -> Callable[..., int]:
        def call(*arguments: object) -> int:
            self.calls.append(name)
            return self.statuses.get(name, 0)

        return call


def test_memory_is_locked_for_as_long_as_anybody_has_it() -> None:
    driver = ScriptedDriver()
    array = page_locked((2, 3), cast("ctypes.CDLL", driver))
    view = array[:1]
    assert array.sum() == 0
    assert driver.calls.count("cuMemHostRegister_v2") == 1
    del array
    assert "cuMemHostUnregister" not in driver.calls
    del view
    assert driver.calls.count("cuMemHostUnregister") == 1
    retained, released = "cuDevicePrimaryCtxRetain", "cuDevicePrimaryCtxRelease_v2"
    assert driver.calls.count(retained) == driver.calls.count(released) == 2
    assert driver.calls.count("cuCtxPushCurrent_v2") == driver.calls.count("cuCtxPopCurrent_v2") == 2


def test_memory_that_cannot_be_locked_serves_with_a_warning(caplog: pytest.LogCaptureFixture) -> None:
    driver = ScriptedDriver(cuMemHostRegister_v2=801)
    array = page_locked((2, 3), cast("ctypes.CDLL", driver))
    assert array.shape == (2, 3)
    assert "cuMemHostRegister_v2 returned 801" in caplog.text
    assert driver.calls[-1] == "cuDevicePrimaryCtxRelease_v2"
    del array
    assert "cuMemHostUnregister" not in driver.calls


def test_a_failure_of_the_runtime_is_an_inference_failure(tmp_path: Path) -> None:
    engine = Engine.load(write_model(tmp_path), OPTIONS)
    with pytest.raises(InferenceFailed) as caught:
        engine.run(np.zeros((1, 9, 8, 1), np.uint8))
    assert caught.value.__cause__ is not None


def test_a_warm_up_that_fails_rejects_the_model(tmp_path: Path) -> None:
    engine = Engine.load(write_model(tmp_path), OPTIONS)
    contract = engine.metadata.input.model_copy(update={"height": 9})
    engine.metadata = engine.metadata.model_copy(update={"input": contract})
    with pytest.raises(LoadFailed, match="warm-up"):
        engine.warm(1)


def test_warms_every_bucket_of_a_fast_model(tmp_path: Path) -> None:
    engine = Engine.load(write_model(tmp_path), OPTIONS)
    cost, largest = warm_up(engine)
    assert engine.buckets == (1, 2, 4, 6)
    assert largest == 6
    assert cost.predict_s(1) > 0


def test_warms_no_batch_of_a_slow_model_that_is_never_formed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(write_model(tmp_path), OPTIONS)
    warmed: list[int] = []

    def warm(self: Engine, size: int) -> float:
        warmed.append(size)
        return 0.05 * size

    monkeypatch.setattr(Engine, "warm", warm)
    assert warm_up(engine)[1] == 2
    assert warmed == [1, 2]
    warmed.clear()
    engine.active = "cuda"  # where every size that may come is searched for its kernels
    assert warm_up(engine)[1] == 6
    assert warmed == [1, 2, 4, 6]


def test_the_self_test_reports_its_error(tmp_path: Path) -> None:
    engine = Engine.load(write_model(tmp_path), OPTIONS)
    result = engine.self_test()
    assert result.instances == 3
    assert 0 <= result.max_abs_error < 1e-4
    assert result.relative_error <= result.tolerance == 1e-4


def test_the_metadata_is_the_files(tmp_path: Path) -> None:
    path = write_model(tmp_path, name="tiny", version="4")
    engine = Engine.load(path, OPTIONS)
    assert engine.metadata.version == "4"
    assert parse_metadata(engine.metadata.to_props(), path) == engine.metadata
    assert engine.input_shape == (8, 8, 1)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(InvalidFile, match="no such file"):
        Engine.load(tmp_path / "model.onnx", OPTIONS)


def test_a_tiny_model_runs_on_one_thread(tmp_path: Path) -> None:
    assert Engine.load(write_model(tmp_path), EngineOptions(provider=Provider.CPU)).threads == 1


def test_a_heavy_model_runs_on_all_the_cpus_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("service.engine.engine._LIGHT_S", 0.0)
    assert (
        Engine.load(write_model(tmp_path), EngineOptions(provider=Provider.CPU)).threads == available_cpus()
    )


def test_threads_that_were_asked_for_are_taken(tmp_path: Path) -> None:
    assert Engine.load(write_model(tmp_path), EngineOptions(provider=Provider.CPU, threads=3)).threads == 3


def test_a_file_that_changes_while_it_is_loaded_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write_model(tmp_path)
    original = sessions.open_session

    def swapping(*arguments: Any) -> sessions.OpenSession:
        write_model(tmp_path, model=TinyModel.make(seed=7))
        return original(*arguments)

    monkeypatch.setattr("service.engine.engine.open_session", swapping)
    with pytest.raises(InvalidFile, match="was changed"):
        Engine.load(path, OPTIONS)


class FailingSession:
    """A session whose runtime fails in these words."""

    def __init__(self, words: str) -> None:
        self._words = words

    def run(self, *_: object) -> None:
        """Fails."""
        raise RuntimeError(self._words)


POISONING = [
    *(
        f"CUDA failure {number}: {text} ; GPU=0 ; hostname=h ; expr=cudaStreamSynchronize(stream); "
        for number, text in POISONING_CUDA_ERRORS.items()
    ),
    "[Runtime] enqueueV3: Error Code 1: Cuda Runtime (an illegal memory access was encountered)",
]
PASSING = [
    "CUDA failure 2: out of memory ; GPU=0 ; hostname=h ; expr=cudaMalloc(&p, size); ",
    "CUDA failure 7000: of another kind ; GPU=0",
    "CUBLAS failure 3: CUBLAS_STATUS_ALLOC_FAILED ; GPU=0",
    "bfc_arena.cc:376 AllocateRawInternal Failed to allocate memory for requested buffer of size 700",
    "Got invalid dimensions for input: images",
]


@pytest.mark.parametrize("words", POISONING)
def test_a_poisoned_context_is_lost_for_good(tmp_path: Path, words: str) -> None:
    engine = failing(tmp_path, words)
    with pytest.raises(EngineLost, match="no batch can run in this process any more"):
        engine.run(np.zeros((1, 8, 8, 1), np.uint8))


@pytest.mark.parametrize("words", PASSING)
def test_other_failures_are_the_batchs_own(tmp_path: Path, words: str) -> None:
    with pytest.raises(InferenceFailed) as caught:
        failing(tmp_path, words).run(np.zeros((1, 8, 8, 1), np.uint8))
    assert type(caught.value) is InferenceFailed


def test_a_device_that_was_reset_is_lost() -> None:
    assert needs_new_process(ort_errors.DeviceReset("the device was removed"))


def failing(root: Path, words: str) -> Engine:
    """An engine whose session fails."""
    engine = Engine.load(write_model(root), OPTIONS)
    engine._session = FailingSession(words)
    return engine


def heavy(root: Path, threads: int | None = 2) -> Engine:
    """An engine with lanes."""
    return Engine.load(write_model(root), EngineOptions(provider=Provider.CPU, threads=threads))


def test_lanes_and_all_cores_give_the_same_logits(tmp_path: Path) -> None:
    engine = heavy(tmp_path)
    assert engine.has_lanes
    pixels = np.random.default_rng(0).integers(0, 256, (16, 8, 8, 1), np.uint8)
    expected, _ = engine.run(pixels)
    with ThreadPoolExecutor(4) as threads:
        ran = list(
            threads.map(engine.run_in_lane, [pixels[start : start + 2] for start in range(0, 16, 2)] * 8)
        )
    for position, (logits, _) in enumerate(ran):
        start = 2 * (position % 8)
        np.testing.assert_allclose(logits, expected[start : start + 2], rtol=1e-5, atol=1e-5)


def test_on_one_thread_there_are_no_lanes(tmp_path: Path) -> None:
    assert not heavy(tmp_path, threads=1).has_lanes


@pytest.mark.parametrize("which", ["_session", "_narrow"])
def test_the_self_test_tries_every_session(tmp_path: Path, which: str) -> None:
    engine = heavy(tmp_path / "right")
    other = Engine.load(write_model(tmp_path / "other", model=TinyModel.make(seed=7)), OPTIONS)
    engine.self_test()
    setattr(engine, which, other._session)
    with pytest.raises(SelfTestFailed):
        engine.self_test()


def test_an_engine_with_lanes_is_released_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    engine = heavy(tmp_path)
    sessions_of_it = [weakref.ref(engine._session), weakref.ref(engine._narrow)]
    seen: list[object] = []

    def look() -> None:
        seen.extend(session() for session in sessions_of_it)

    monkeypatch.setattr("service.engine.engine.give_back_freed_memory", look)
    engine.release()
    assert seen == [None, None]  # else there would be nothing to give back yet


def test_wide_batches_are_warmed_only_below_the_lanes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engine = Engine.load(
        write_model(tmp_path), EngineOptions(provider=Provider.CPU, threads=3, max_batch_size=8)
    )
    wide: list[int] = []
    narrow: list[int] = []

    def warm(size: int) -> float:
        wide.append(size)
        return 1e-4 * size

    def warm_lane(size: int) -> float:
        narrow.append(size)
        return 3 * (1e-4 + slow_s) * size

    slow_s = 0.0
    monkeypatch.setattr(engine, "warm", warm)
    monkeypatch.setattr(engine, "warm_lane", warm_lane)
    cost, largest = warm_up(engine)
    assert (wide, narrow, largest) == ([1, 2], [1, 2, 4, 8], 8)
    assert cost.predict_s(8) == pytest.approx(8e-4)
    slow_s = 0.5  # a lane of it takes one instance at a time, a wide run as many as come
    wide.clear()
    narrow.clear()
    assert warm_up(engine)[1] == 4
    assert (wide, narrow) == ([1, 2], [1, 2, 4])
