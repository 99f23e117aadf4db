"""What is tried: workers, threads, the batch limit and the precision.

::

    shapes       workers x threads of one inference, at the default batch limit
    precisions   the other files of the version, with the best shape
    limits       other batch limits, with the best of both

One after the other, not all combinations: each step keeps the best so far, which takes ten runs instead
of fifty.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Final

from service.artifact import Precision
from service.settings import Settings, flag_name, variable_name

# Of this process's own business, or in the way of a measurement.
_NOT_HANDED_ON: Final = frozenset(
    {"host", "port", "commit", "api_keys_file", "rate_limit_per_minute", "log_level", "log_format", "models"}
)
_BATCH_LIMITS: Final = (8, 16, 32, 128, 256)
# More than this many processes on one machine are left to several machines.
_MAX_WORKERS: Final = 16


@dataclass(frozen=True, slots=True)
class Candidate:
    """One configuration.

    Attributes:
        workers: Processes.
        threads: Cores of inference; None: the service's own choice.
        max_batch_size: The batch limit.
        precision: Which file of the version.
    """

    workers: int
    threads: int | None
    max_batch_size: int
    precision: Precision

    def __str__(self) -> str:
        threads = "threads auto" if self.threads is None else f"threads {self.threads}"
        return f"workers {self.workers}, {threads}, batch {self.max_batch_size}, {self.precision.value}"

    @property
    def settings(self) -> dict[str, str]:
        """As settings by name; what is left to the service's own choice is not in it."""
        chosen = {
            "workers": str(self.workers),
            "max_batch_size": str(self.max_batch_size),
            "precision": self.precision.value,
        }
        return chosen if self.threads is None else {**chosen, "threads": str(self.threads)}

    @property
    def variables(self) -> dict[str, str]:
        """As environment variables."""
        return {variable_name(name): value for name, value in self.settings.items()}

    def flags(self, settings: Settings, model: str) -> list[str]:
        """Of ``python -m service``, for one model and with everything else as the settings have it."""
        given = {**_given(settings), **self.settings, "models": model}
        if self.threads is None:
            given.pop("threads", None)
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


def first(settings: Settings, precision: Precision) -> Candidate:
    """What the settings say, with one worker where they leave that open: the others are compared with it."""
    return Candidate(settings.workers or 1, settings.threads, settings.max_batch_size, precision)


def shapes(start: Candidate, cpus: int, *, on_gpu: bool) -> Iterator[Candidate]:
    """Other ways to share the CPUs among processes and threads; on a GPU there is one."""
    if on_gpu:
        return
    counts = [1 << power for power in range(cpus.bit_length()) if 1 << power <= min(cpus, _MAX_WORKERS)]
    for workers in dict.fromkeys([*counts, min(cpus, _MAX_WORKERS)]):
        for threads in dict.fromkeys([1, cpus // workers]):
            candidate = replace(start, workers=workers, threads=threads)
            if candidate != start:
                yield candidate


def precisions(best: Candidate, there: tuple[Precision, ...]) -> Iterator[Candidate]:
    """The same with the other files of the version."""
    return (replace(best, precision=precision) for precision in there if precision is not best.precision)


def limits(best: Candidate) -> Iterator[Candidate]:
    """The same with other batch limits, the nearest first."""
    others = [size for size in _BATCH_LIMITS if size != best.max_batch_size]
    for size in sorted(others, key=lambda size: max(size / best.max_batch_size, best.max_batch_size / size)):
        yield replace(best, max_batch_size=size)
