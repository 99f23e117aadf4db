"""What this process may use of the machine: CPUs by affinity and quota, memory, instructions, a GPU's driver.

ONNX Runtime respects the affinity mask but not a cgroup's CPU quota; with more threads than the quota
pays for, all of them are stopped together for the rest of each period, in the middle of a batch.
"""

from __future__ import annotations

import ctypes
import math
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final, TypeAlias

# Of the NVIDIA driver, as every CUDA program loads it.
DRIVER: Final = "libcuda.so.1"

# A cgroup's folder → what it allows; None: no limit.
_LimitReader: TypeAlias = Callable[[Path], float | None]
# As /proc/cpuinfo spells the instructions that make int8 faster than fp32.
_INT8_FLAGS = frozenset({"avx512_vnni", "avx_vnni", "amx_int8", "asimddp", "i8mm"})


def available_cpus(root: Path = Path("/")) -> int:
    """CPUs this process may keep busy: its affinity mask, cut to the cgroup's quota; at least 1.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    allowed = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.floor(min([allowed, *_quotas(root)])))


def available_memory_bytes(root: Path = Path("/")) -> int | None:
    """Memory that this process may use: the machine's, cut to the cgroup's limit; None: nobody says.

    Args:
        root: Where ``proc`` and ``sys`` are.
    """
    return min((*_total_memory(root), *_memory_limits(root)), default=None)


def give_back_freed_memory() -> None:
    """Hand what the C library keeps of freed memory back to the system, where it knows how (glibc)."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is not None:
        trim(0)


def has_int8_instructions(root: Path = Path("/")) -> bool:
    """Whether the CPU multiplies int8 faster than float32 (VNNI, AMX, ARM dot product)."""
    for line in _read(root / "proc/cpuinfo").splitlines():
        if line.startswith(("flags", "Features")):
            return not _INT8_FLAGS.isdisjoint(line.split())
    return False


def has_driver() -> bool:
    """Whether an NVIDIA driver is installed."""
    return load_fault(DRIVER) is None


def load_fault(library: str, mode: int = ctypes.DEFAULT_MODE) -> str | None:
    """Why a shared library cannot be loaded; None: it is, from now on."""
    try:
        ctypes.CDLL(library, mode=mode)
    except OSError as error:
        return str(error)
    return None


def _quotas(root: Path) -> Iterator[float]:
    """CPUs allowed by each cgroup this process is in, itself and its ancestors."""
    return _limits(root, "cpu", _quota_v2, _quota_v1)


def _memory_limits(root: Path) -> Iterator[int]:
    """Bytes allowed by each of them."""
    return map(int, _limits(root, "memory", _number("memory.max"), _number("memory.limit_in_bytes")))


def _total_memory(root: Path) -> Iterator[int]:
    for line in _read(root / "proc/meminfo").splitlines():
        if line.startswith("MemTotal:"):
            yield int(line.split()[1]) * 1024


def _limits(root: Path, controller: str, read_v2: _LimitReader, read_v1: _LimitReader) -> Iterator[float]:
    """What each cgroup this process is in allows of something."""
    for line in _read(root / "proc/self/cgroup").splitlines():
        _, controllers, path = line.split(":", 2)
        if not controllers:
            yield from _walk(root / "sys/fs/cgroup", path, read_v2)
        elif controller in controllers.split(","):
            for mount in dict.fromkeys((controllers, controller)):
                yield from _walk(root / "sys/fs/cgroup" / mount, path, read_v1)


def _walk(mount: Path, path: str, read: _LimitReader) -> Iterator[float]:
    folder = mount / path.lstrip("/")
    # In a container the path may be the host's and not exist here; the mount is then the container's own.
    for candidate in (folder, *folder.parents):
        quota = read(candidate)
        if quota is not None:
            yield quota
        if candidate == mount:
            return


def _quota_v2(folder: Path) -> float | None:
    quota, _, period = _read(folder / "cpu.max").strip().partition(" ")
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None


def _quota_v1(folder: Path) -> float | None:
    quota = _read(folder / "cpu.cfs_quota_us").strip()
    period = _read(folder / "cpu.cfs_period_us").strip()
    return int(quota) / int(period) if quota.isdigit() and period.isdigit() else None  # -1: no limit


def _number(name: str) -> _LimitReader:
    """Reads a file that holds a number, or a word for no limit."""

    def read(folder: Path) -> float | None:
        text = _read(folder / name).strip()
        return int(text) if text.isdigit() else None

    return read


def _read(path: Path) -> str:
    """The file's text; empty where there is none (another system, another cgroup version)."""
    try:
        return path.read_text()
    except OSError:
        return ""
