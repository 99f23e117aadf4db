"""Memory and utilisation of the GPUs, as NVIDIA's management library tells them. Read when a scrape comes.

The numbers are those of the whole device, not of this process: what others take is missing here as well.

Source: NVIDIA Management Library (NVML) API reference, "Device Queries".
"""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple, TypeAlias


class GpuReading(NamedTuple):
    """One GPU now.

    Attributes:
        gpu: NVML's number of it, which CUDA_VISIBLE_DEVICES does not change.
        utilization: Share of the last moments in which a kernel ran, 0…1.
    """

    gpu: str
    used_bytes: int
    total_bytes: int
    utilization: float


ReadGpus: TypeAlias = Callable[[], list[GpuReading]]


def open_gpus() -> ReadGpus:
    """What reads every GPU of this machine; it reads none where there is no NVML or no driver."""
    try:
        import pynvml  # of the extra `gpu`
    except ImportError:
        return _none

    def read() -> list[GpuReading]:
        try:
            return [_read(index) for index in range(pynvml.nvmlDeviceGetCount())]
        except pynvml.NVMLError:  # a GPU that fell off the bus; the engine says so, loudly
            return []

    def _read(index: int) -> GpuReading:
        device = pynvml.nvmlDeviceGetHandleByIndex(index)
        memory = pynvml.nvmlDeviceGetMemoryInfo(device)
        busy = pynvml.nvmlDeviceGetUtilizationRates(device).gpu
        return GpuReading(str(index), int(memory.used), int(memory.total), busy / 100)

    try:
        pynvml.nvmlInit()
    except pynvml.NVMLError:
        return _none
    return read


def _none() -> list[GpuReading]:
    return []
