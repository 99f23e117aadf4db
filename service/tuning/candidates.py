"""What is tried: workers, threads, the batch limit and the precision.

::

    start        the settings as they are; what is unset stays the service's own choice
    shapes       workers x threads of one inference, but for those that the start has anyway
    precisions   the other files of the version, with the best shape
    limits       other batch limits, with the best of both

One after the other, not all combinations: each step keeps the best so far, which takes ten runs instead
of fifty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from typing import Final, NamedTuple

from service.artifact import Precision
from service.settings import Settings, flag_name, variable_name

# Of this process's own business, or in the way of a measurement.
_NOT_HANDED_ON: Final = frozenset(
    {"host", "port", "commit", "api_keys_file", "rate_limit_per_minute", "log_level", "log_format", "models"}
)
_BATCH_LIMITS: Final = (8, 16, 32, 128, 256)
_TUNED: Final = frozenset({"workers", "threads", "max_batch_size", "precision"})
# Of no machine: neither its variables nor its flags are in it.
_DEFAULTS: Final = Settings.model_construct()
# More than this many processes on one machine are left to several machines.
_MAX_WORKERS: Final = 16


class Shape(NamedTuple):
    """How a service shares its CPUs: its processes, and the threads of each one's inference."""

    workers: int
    threads: int


@dataclass(frozen=True, slots=True)
class Candidate:
    """One configuration. What is None is unset: neither handed to the service nor written down.

    Attributes:
        workers: Processes; None: the service's own choice.
        threads: Cores of inference; None: the service's own choice.
        max_batch_size: The batch limit; None: the default.
        precision: Which file of the version; None: the default.
    """

    workers: int | None = None
    threads: int | None = None
    max_batch_size: int | None = None
    precision: Precision | None = None

    def __str__(self) -> str:
        workers, threads = (
            "auto" if chosen is None else str(chosen) for chosen in (self.workers, self.threads)
        )
        return f"workers {workers}, threads {threads}, batch {self.batch_limit}, {self.file.value}"

    @property
    def batch_limit(self) -> int:
        """The batch limit that the service has with it."""
        return self.max_batch_size or _DEFAULTS.max_batch_size

    @property
    def file(self) -> Precision:
        """The file that the service loads with it."""
        return self.precision or Precision(_DEFAULTS.precision)

    @property
    def settings(self) -> dict[str, str]:
        """As settings by name; what is unset is not in it."""
        return {name: str(value) for name, value in asdict(self).items() if value is not None}

    @property
    def variables(self) -> dict[str, str]:
        """As environment variables."""
        return {variable_name(name): value for name, value in self.settings.items()}

    def flags(self, settings: Settings, model: str) -> list[str]:
        """Of ``python -m service``, for one model and with everything else as the settings have it."""
        given = {name: value for name, value in _given(settings).items() if name not in _TUNED}
        given |= {**self.settings, "models": model}
        return [part for name, value in given.items() for part in (flag_name(name), value)]


def _given(settings: Settings) -> dict[str, str]:
    """The settings that are not at their default, as text."""
    return {
        name: _text(getattr(settings, name))
        for name, field in Settings.model_fields.items()
        if name not in _NOT_HANDED_ON and getattr(settings, name) != field.default
    }


def _text(value: object) -> str:
    if isinstance(value, tuple):
        return ",".join(map(str, value))
    return str(value).lower() if isinstance(value, bool) else str(value)


def first(settings: Settings, loaded: Precision) -> Candidate:
    """What the settings say, and no more than they say: the others are compared with it.

    Args:
        settings: Of the service.
        loaded: The file that it loads with them.
    """
    is_set = settings.model_fields_set
    return Candidate(
        settings.workers,
        settings.threads,
        settings.max_batch_size if "max_batch_size" in is_set else None,
        loaded if "precision" in is_set else None,
    )


def shapes(start: Candidate, cpus: int, there: Shape) -> Iterator[Candidate]:
    """Other ways to share the CPUs among processes and threads.

    Args:
        start: What is changed.
        cpus: That the service may use.
        there: What the start comes to; the same in other words would be no other way.
    """
    counts = [1 << power for power in range(cpus.bit_length()) if 1 << power <= min(cpus, _MAX_WORKERS)]
    for workers in dict.fromkeys([*counts, min(cpus, _MAX_WORKERS)]):
        for threads in dict.fromkeys([1, cpus // workers]):
            if Shape(workers, threads) != there:
                yield replace(start, workers=workers, threads=threads)


def precisions(best: Candidate, there: tuple[Precision, ...]) -> Iterator[Candidate]:
    """The same with the other files of the version."""
    return (replace(best, precision=precision) for precision in there if precision is not best.file)


def limits(best: Candidate) -> Iterator[Candidate]:
    """The same with other batch limits, the nearest first."""
    own = best.batch_limit
    others = [size for size in _BATCH_LIMITS if size != own]
    for size in sorted(others, key=lambda size: max(size / own, own / size)):
        yield replace(best, max_batch_size=size)
