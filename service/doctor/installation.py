"""The installation: Python, the packages that serving needs, and the execution provider."""

from __future__ import annotations

import importlib.metadata
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from service.doctor.finding import Finding, ok, problem, warning
from service.engine import Kind, Provider, missing_part
from service.hardware import has_driver, has_int8_instructions
from service.settings import Settings

# What serving imports, beside ONNX Runtime. That they can be imported is shown by this running at all.
_PACKAGES: Final = (
    "fastapi",
    "httptools",
    "numpy",
    "orjson",
    "pillow",
    "prometheus-client",
    "pydantic",
    "pydantic-settings",
    "simplejpeg",
    "starlette",
    "uvicorn",
    "uvloop",
)
_RUNTIMES: Final = ("onnxruntime", "onnxruntime-gpu")
_REINSTALL: Final = "install it anew: pip install -c constraints.txt ."
_DRIVER_VERSION: Final = Path("/proc/driver/nvidia/version")


def examine_installation(settings: Settings) -> Iterator[Finding]:
    """Python, packages, ONNX Runtime, and the provider that the settings ask for."""
    yield _packages()
    yield _runtime()
    yield _provider(settings)


def _packages() -> Finding:
    python = f"{platform.python_implementation()} {platform.python_version()} on {platform.platform()}"
    return ok("packages", ", ".join([python, *(f"{name} {_version(name)}" for name in _PACKAGES)]))


def _runtime() -> Finding:
    found = [name for name in _RUNTIMES if _version(name) is not None]
    words = " and ".join(f"{name} {_version(name)}" for name in found)
    if len(found) > 1:
        remedy = f"they overwrite each other: pip uninstall {' '.join(found)}, then install one of them"
        return problem("runtime", f"{words} are both installed", remedy)
    return ok("runtime", words) if found else problem("runtime", "there is no ONNX Runtime", _REINSTALL)


def _provider(settings: Settings) -> Finding:
    wanted = Provider(settings.execution_provider)
    if wanted is Provider.CPU or (wanted is Provider.AUTO and not has_driver()):
        words = "fast int8" if has_int8_instructions() else "no instructions for fast int8"
        why = "as asked for" if wanted is Provider.CPU else "no NVIDIA driver is installed"
        return ok("provider", f"the CPU, {why}; {words}")
    kind: Kind = "tensorrt" if wanted is Provider.TENSORRT else "cuda"
    fault = missing_part(kind)
    if fault is None:
        return ok("provider", f"{kind}; {_driver()}; {_cuda_packages()}")
    if wanted is Provider.AUTO:
        remedy = "repair that, or set execution_provider=cpu to say that the CPU is meant"
        return warning("provider", f"{_driver()}, but inference will run on the CPU: {fault}", remedy)
    return problem("provider", f"{wanted} is asked for, but {fault}", "repair that, or ask for auto or cpu")


def _driver() -> str:
    try:
        return " ".join(_DRIVER_VERSION.read_text().splitlines()[0].split())
    except (OSError, IndexError):
        return "an NVIDIA driver"


def _cuda_packages() -> str:
    names = (distribution.name for distribution in importlib.metadata.distributions())
    libraries = sorted({name for name in names if name.startswith(("nvidia-cudnn", "nvidia-cuda-runtime"))})
    return ", ".join(f"{name} {_version(name)}" for name in libraries) or "CUDA of the system"


def _version(distribution: str) -> str | None:
    try:
        return importlib.metadata.version(distribution)
    except importlib.metadata.PackageNotFoundError:
        return None
