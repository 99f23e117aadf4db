"""Page-locked memory: what a CUDA device copies from by itself, at full speed.

By the driver's own interface, which is there wherever a driver is, in every version of CUDA.

Source: CUDA Driver API, sections "Memory Management" (cuMemHostRegister) and "Primary Context Management".
"""

from __future__ import annotations

import ctypes
import logging
import weakref
from typing import Final

import numpy as np
from numpy.typing import NDArray

logger = logging.getLogger(__name__)

_DRIVER: Final = "libcuda.so.1"
_PORTABLE: Final = 1  # for every context of the process
_FIRST_DEVICE: Final = 0


class DriverFault(Exception):
    """A call of the driver did not return success."""


def page_locked(shape: tuple[int, ...], driver: ctypes.CDLL | None = None) -> NDArray[np.uint8]:
    """Zeros, locked for as long as the array lives; ordinary memory, with a warning, where that fails.

    Args:
        shape: Of the array.
        driver: CUDA's; None: the one that is installed.
    """
    array = np.zeros(shape, np.uint8)
    try:
        library = driver or ctypes.CDLL(_DRIVER)
        address = array.ctypes.data
        _in_context(library, "cuMemHostRegister_v2", ctypes.c_void_p(address), array.nbytes, _PORTABLE)
    except (OSError, DriverFault) as error:
        logger.warning("images go to the GPU from ordinary memory, which is slower: %s", error)
        return array
    # The views of an array keep it alive, so nobody copies from it any more by then.
    weakref.finalize(array, _unlock, library, address)
    return array


def _unlock(library: ctypes.CDLL, address: int) -> None:
    try:
        _in_context(library, "cuMemHostUnregister", ctypes.c_void_p(address))
    except DriverFault as error:
        logger.warning("page-locked memory was not given back: %s", error)


def _in_context(library: ctypes.CDLL, function: str, *arguments: object) -> None:
    """Call a function in the device's primary context, which is the runtime's as well."""
    device, context = ctypes.c_int(), ctypes.c_void_p()
    _call(library, "cuInit", 0)
    _call(library, "cuDeviceGet", ctypes.byref(device), _FIRST_DEVICE)
    _call(library, "cuDevicePrimaryCtxRetain", ctypes.byref(context), device)
    try:
        _call(library, "cuCtxPushCurrent_v2", context)
        try:
            _call(library, function, *arguments)
        finally:
            _call(library, "cuCtxPopCurrent_v2", ctypes.byref(ctypes.c_void_p()))
    finally:
        _call(library, "cuDevicePrimaryCtxRelease_v2", device)


def _call(library: ctypes.CDLL, function: str, *arguments: object) -> None:
    status: int = getattr(library, function)(*arguments)
    if status:
        raise DriverFault(f"{function} returned {status}")
