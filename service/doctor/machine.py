"""The machine: threads, memory, file descriptors, the port and its certificate, and the user."""

from __future__ import annotations

import os
import resource
from collections.abc import Iterator
from typing import Final

from service.doctor.finding import Finding, ok, problem, warning
from service.errors import InvalidConfiguration
from service.hardware import available_cpus, available_memory_bytes
from service.server import bind, most_workers, tls_context
from service.settings import Settings

_MIB: Final = 1024 * 1024
# What a process needs before its first request.
_BASE_BYTES: Final = 110 * _MIB
# The most that decoding takes; see `service.images.DecodeLimits`.
_BYTES_A_PIXEL: Final = 24
_OTHER_DESCRIPTORS: Final = 256


def examine_machine(settings: Settings) -> Iterator[Finding]:
    """What the settings ask of this machine, beside what it has."""
    yield _threads(settings)
    yield _memory(settings)
    yield _descriptors(settings)
    yield _port(settings)
    if settings.tls_certificate_file is not None:
        yield _certificate(settings)
    yield _user()


def _threads(settings: Settings) -> Finding:
    cpus, of_all = available_cpus(), os.cpu_count()
    found = f"{cpus} of {of_all} CPUs are this process's, by affinity and cgroup quota"
    wanted = (settings.workers or 1) * (settings.threads or 1)
    if wanted > cpus:
        remedy = "lower workers or threads, or give it more CPUs; more threads than CPUs only take turns"
        threads = "threads" if settings.threads else "workers"
        return warning("threads", f"{found}, but {wanted} {threads} are asked for", remedy)
    return ok("threads", found)


def _memory(settings: Settings) -> Finding:
    decoding = settings.max_pixels * _BYTES_A_PIXEL * available_cpus()
    most = (settings.workers or most_workers()) * (_BASE_BYTES + settings.max_bytes_in_flight) + decoding
    limit = available_memory_bytes()
    if limit is None:
        return ok("memory", f"at most {most // _MIB} MiB are needed, the models aside")
    found = f"at most {most // _MIB} MiB are needed, the models aside; {limit // _MIB} MiB are allowed"
    if most > limit:
        remedy = "lower max_bytes_in_flight or max_pixels, or allow more: else the system kills it one day"
        return warning("memory", found, remedy)
    return ok("memory", found)


def _descriptors(settings: Settings) -> Finding:
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = settings.max_connections + _OTHER_DESCRIPTORS
    if hard != resource.RLIM_INFINITY and hard < wanted:
        remedy = f"lower max_connections, or raise the limit: ulimit -n {wanted}"
        return warning("descriptors", f"{hard} files may be open, {wanted} may be needed", remedy)
    return ok("descriptors", f"enough for {settings.max_connections} connections")


def _port(settings: Settings) -> Finding:
    try:
        bind(settings.host, settings.port).close()
    except InvalidConfiguration as error:
        return problem("port", str(error), "stop the other process, or choose another host or port")
    return ok("port", f"{settings.host} port {settings.port} is free")


def _certificate(settings: Settings) -> Finding:
    try:
        tls_context(settings)
    except InvalidConfiguration as error:
        return problem("tls", str(error), "name a PEM file with the chain, and one with its key")
    return ok("tls", f"the port speaks HTTPS with {settings.tls_certificate_file}")


def _user() -> Finding:
    if os.geteuid() == 0:
        return warning("user", "this is root", "run it as another user: it needs no privilege")
    return ok("user", f"user {os.geteuid()}, not root")
