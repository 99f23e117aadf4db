"""What is installed beside what is pinned, and whether its files are those that were installed."""

from __future__ import annotations

import base64
import hashlib
from collections.abc import Iterable, Iterator, Mapping
from importlib.metadata import Distribution, PackagePath
from typing import Final

from packaging.utils import canonicalize_name
from packaging.version import Version

from deploy.audit.outcome import Outcome, judged

CHECK: Final = "installation"
# Installed by the virtual environment, and by us.
_UNPINNED: Final = frozenset({"foldserve", "pip", "setuptools", "wheel"})
# Of the extra `gpu`: ONNX Runtime and torch each name the versions that they need.
_CUDA: Final = "nvidia-"


def examine_installation(pins: Mapping[str, str], distributions: Iterable[Distribution]) -> Outcome:
    """Compare every installed distribution with its pin, and its files with the hashes it was installed with.

    Args:
        pins: Name → version.
        distributions: What is installed.
    """
    installed = {canonicalize_name(each.name): each for each in distributions}
    findings: list[str] = []
    hashed = 0
    for name, distribution in sorted(installed.items()):
        if name in _UNPINNED:
            continue
        findings += _version_findings(name, distribution.version, pins.get(name))
        for path, is_whole in _hashed_files(distribution):
            hashed += 1
            if not is_whole:
                findings.append(f"{name}: {path} is not as it was installed; install {name} anew")
    words = f"{len(installed)} packages and {hashed} of their files are compared with pins and hashes"
    return judged(CHECK, words, findings)


def _version_findings(name: str, version: str, pin: str | None) -> Iterator[str]:
    if pin is None:
        if not name.startswith(_CUDA):
            yield f"{name} {version} is installed and has no pin"
    elif Version(Version(version).public) != Version(pin):  # `+cpu` and the like are builds of one version
        yield f"{name} {version} is installed, and {pin} is pinned"


def _hashed_files(distribution: Distribution) -> Iterator[tuple[PackagePath, bool]]:
    for path in distribution.files or ():
        if path.hash is None or path.hash.mode != "sha256":
            continue
        try:
            digest = hashlib.sha256(path.read_binary()).digest()
        except OSError:
            yield path, False
            continue
        yield path, base64.urlsafe_b64encode(digest).rstrip(b"=").decode() == path.hash.value
