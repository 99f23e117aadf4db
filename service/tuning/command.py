"""The command itself: its flags, its progress, its end."""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import Final

from service.engine import EngineOptions, Provider
from service.errors import FoldserveError
from service.hardware import available_cpus
from service.images import DecodeLimits
from service.settings import Settings, load_settings
from service.tuning import candidates
from service.tuning.anatomy import Anatomy, dissect
from service.tuning.interruption import Interruption
from service.tuning.load import request_bytes
from service.tuning.measuring import Prober, best_held
from service.tuning.objective import Objective, parse_objective
from service.tuning.process import running
from service.tuning.report import SETTINGS_FILE, Report, prepare
from service.tuning.search import Outcome, Search, Step
from service.tuning.subject import MEDIA_TYPE, Subject, find, on_gpu

_DEFAULT_OBJECTIVE: Final = "p99<50ms"
_DEFAULT_MINUTES: Final = 5.0
_LEAST_MINUTES, _MOST_MINUTES = 0.1, 120.0
_DEFAULT_LOSS: Final = 0.005


class ObjectiveMissed(FoldserveError):
    """No configuration holds the objective; says how near the nearest came."""


def tune(arguments: Sequence[str]) -> str:
    """Search, write the reports, and return the text of one.

    Args:
        arguments: ``--objective``, ``--minutes``, ``--pictures``, ``--folder``, ``--max-accuracy-loss``, and
            any flag of the service.

    Raises:
        InvalidConfiguration: A flag is wrong, there is nothing to tune, or nowhere to write.
        ObjectiveMissed: No configuration holds the objective; the reports are written, no settings are.
        CannotStart: The service does not start as it is.
        Interrupted: Before the service as it is was measured.
        ReportLost: The folder cannot be written any more when the search has ended.
    """
    parser = _parser()
    options, rest = parser.parse_known_args(arguments)
    objective = parse_objective(options.objective)
    settings = load_settings(rest, beside=parser)
    subject = find(settings, options.max_accuracy_loss)
    images = subject.images(options.pictures)
    prepare(options.folder)
    cpus = available_cpus()
    with Interruption() as interruption:
        outcome = _search(settings, subject, objective, images, options.minutes * 60, interruption)
        report = Report(subject, objective, outcome, _dissect(settings, subject, outcome, images, cpus), cpus)
        report.write(options.folder)
    if not outcome.is_held:
        raise ObjectiveMissed(f"{report.text.strip()}\nreports in {options.folder}")
    return f"{report.text}\nsettings in {options.folder / SETTINGS_FILE}, reports and curve beside it\n"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        "python -m service tune",
        description="Find the settings that hold a latency objective at the highest throughput, on this "
        "machine, with one model. Every flag of the service may be given, too.",
        allow_abbrev=False,
    )
    parser.add_argument(
        "--objective", default=_DEFAULT_OBJECTIVE, help='e.g. "p99<50ms" or "p50<5ms, p99<0.1s"'
    )
    parser.add_argument("--minutes", type=_minutes, default=_DEFAULT_MINUTES, help="how long it may take")
    parser.add_argument(
        "--pictures", type=Path, help="folder of pictures to send; default: those of the model's self-test"
    )
    parser.add_argument("--folder", type=Path, default=Path("reports/tune"), help="where the reports go")
    parser.add_argument(
        "--max-accuracy-loss",
        type=_loss,
        default=_DEFAULT_LOSS,
        help="how much less accurate than fp32 another precision may be, 0 to 1",
    )
    return parser


def _minutes(text: str) -> float:
    return _number(text, _LEAST_MINUTES, _MOST_MINUTES)


def _loss(text: str) -> float:
    return _number(text, 0.0, 1.0)


def _number(text: str, least: float, most: float) -> float:
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not least <= number <= most:
        raise argparse.ArgumentTypeError(f"'{text}' is no number from {least:g} to {most:g}")
    return number


def _search(
    settings: Settings,
    subject: Subject,
    objective: Objective,
    images: Sequence[bytes],
    seconds: float,
    interruption: Interruption,
) -> Outcome:
    requests = [request_bytes("http://127.0.0.1", image, MEDIA_TYPE) for image in images]
    _tell(f"{subject.name} version {subject.version}, {objective}, at most {seconds / 60:g} minutes")
    search = Search(
        Prober(requests, objective, interruption.checkpoint),
        lambda candidate: running(
            candidate.flags(settings, subject.name), checkpoint=interruption.checkpoint
        ),
        seconds,
        _tell,
    )
    return search.run(candidates.first(settings, subject.loaded), _steps(settings, subject))


def _steps(settings: Settings, subject: Subject) -> list[Step]:
    """From the best so far to what is tried beside it; a GPU has one worker, and no use for threads."""
    others: list[Step] = [
        partial(candidates.precisions, there=tuple(subject.files)),
        candidates.limits,
    ]
    if on_gpu(settings):
        return others
    shapes = partial(candidates.shapes, cpus=available_cpus(), there=subject.shape(settings))
    return [shapes, *others]


def _dissect(
    settings: Settings, subject: Subject, outcome: Outcome, images: Sequence[bytes], cpus: int
) -> Anatomy | None:
    point = best_held(outcome.best.curves[-1])
    if point is None:
        return None
    best = outcome.best.candidate
    engine = EngineOptions(
        provider=Provider(settings.execution_provider),
        threads=best.threads,
        cpus=max(1, cpus // (best.workers or 1)),
        max_batch_size=best.batch_limit,
    )
    limits = DecodeLimits(max_pixels=settings.max_pixels, formats=frozenset(settings.image_formats))
    return dissect(
        point,
        subject.files[best.file],
        engine,
        images,
        limits,
        cpus,
        has_tried_more_workers=any(trial.workers > outcome.best.workers for trial in outcome.trials),
    )


def _tell(text: str) -> None:
    sys.stderr.write(text + "\n")
    sys.stderr.flush()
