"""What is tuned: one model of the repository, its files by precision, the pictures that are sent to it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from service.artifact import Accuracy, ModelMetadata, Precision
from service.engine import Engine, EngineOptions, Provider
from service.errors import InvalidConfiguration
from service.hardware import available_cpus, has_int8_instructions
from service.repository import model_names, versions
from service.server import default_workers
from service.settings import Settings
from service.tuning.candidates import Shape

# The service reads what an image is from its bytes.
MEDIA_TYPE: Final = "application/octet-stream"
_SUFFIXES: Final = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".avif"})
_DEFAULT_NAME: Final = "digits"
# Pictures are held in memory; so many are as good as all.
_MOST_PICTURES: Final = 256


@dataclass(frozen=True, slots=True)
class Subject:
    """One version of a model.

    Attributes:
        files: By precision; fp32 first.
        metadata: Of each file.
        left_out: Precision → why it is not tried.
        loaded: The file that the service loads as it is set.
    """

    name: str
    version: str
    files: Mapping[Precision, Path]
    metadata: Mapping[Precision, ModelMetadata]
    left_out: Mapping[Precision, str]
    loaded: Precision

    def images(self, folder: Path | None) -> list[bytes]:
        """The pictures in a folder; None: those of the model's own self-test.

        Raises:
            InvalidConfiguration: There is none in the folder, or one cannot be read.
        """
        if folder is None:
            first = next(iter(self.metadata.values()))
            return [instance.image for instance in first.selftest.instances]
        paths = sorted(
            path for path in folder.rglob("*") if path.suffix.lower() in _SUFFIXES and path.is_file()
        )
        if not paths:
            raise InvalidConfiguration(f"no picture in '{folder}' ({', '.join(sorted(_SUFFIXES))})")
        try:
            return [path.read_bytes() for path in paths[:_MOST_PICTURES]]
        except OSError as error:
            raise InvalidConfiguration(f"a picture of '{folder}' cannot be read: {error}") from error

    def shape(self, settings: Settings) -> Shape:
        """What the service makes of the settings, by the rules of its ``workers`` and ``threads``."""
        options = EngineOptions(
            provider=Provider(settings.execution_provider),
            threads=settings.threads,
            cpus=max(1, available_cpus() // (settings.workers or 1)),
            max_batch_size=settings.max_batch_size,
        )
        threads = Engine.load(self.files[self.loaded], options).threads
        return Shape(settings.workers or default_workers(is_single_threaded=threads == 1), threads)


def find(settings: Settings, max_accuracy_loss: float) -> Subject:
    """The model that the settings' service answers with, and which of its files are worth trying.

    Args:
        settings: Of the service.
        max_accuracy_loss: How much less accurate than fp32 a file may be, 0…1; 1: anything goes.

    Raises:
        InvalidConfiguration: No such model, several and none is named, or no file of the set precision.
        ModelRejected: A file of it is none.
    """
    name = _name(settings)
    version = versions(settings.repository_folder / name, settings.repository_folder)[0]
    folder = settings.repository_folder / name / version
    files = {each: folder / each.file_name for each in Precision if (folder / each.file_name).is_file()}
    if not files:
        raise InvalidConfiguration(f"no model file in '{folder}'")
    options = EngineOptions(provider=Provider.CPU, threads=1)
    metadata = {each: Engine.load(path, options).metadata for each, path in files.items()}
    loaded = _loaded(settings, files)
    if loaded not in files:
        raise InvalidConfiguration(
            f"precision {loaded.value} is set, and in '{folder}' there is only "
            + ", ".join(each.value for each in files)
        )
    others = [each for each in files if each is not loaded]
    left_out = {each: fault for each in others if (fault := _fault(metadata, each, max_accuracy_loss))}
    return Subject(
        name,
        version,
        {each: path for each, path in files.items() if each not in left_out},
        {each: document for each, document in metadata.items() if each not in left_out},
        left_out,
        loaded,
    )


def on_gpu(settings: Settings) -> bool:
    """Whether inference runs on one."""
    return Provider(settings.execution_provider).kind != "cpu"


def _loaded(settings: Settings, files: Mapping[Precision, Path]) -> Precision:
    if settings.precision != "auto":
        return Precision(settings.precision)
    native = Precision.INT8 if has_int8_instructions() else Precision.FP32
    native = Precision.FP16 if on_gpu(settings) else native
    return native if native in files else Precision.FP32


def _name(settings: Settings) -> str:
    if not settings.repository_folder.is_dir():
        raise InvalidConfiguration(
            f"no model repository at '{settings.repository_folder}'; `make model` makes one"
        )
    there = model_names(settings.repository_folder)
    wanted = [name for name in there if settings.models is None or name in settings.models]
    name = settings.default_model or (wanted[0] if len(wanted) == 1 else _DEFAULT_NAME)
    if name not in wanted:
        names = ", ".join(there) or "there is none; `make model` makes one"
        raise InvalidConfiguration(f"which model? name one with --models: {names}")
    return name


def _fault(metadata: Mapping[Precision, ModelMetadata], precision: Precision, max_loss: float) -> str | None:
    """Why a file is too inaccurate to be tried, or not known to be accurate enough."""
    if precision is Precision.FP32 or Precision.FP32 not in metadata or max_loss >= 1:
        return None
    losses = _losses(metadata[Precision.FP32].accuracy, metadata[precision].accuracy)
    if not losses:
        return "its file and the fp32 one state no accuracy on the same data; --max-accuracy-loss 1 allows it"
    if max(losses) > max_loss:
        return f"its accuracy is {max(losses):.4f} lower; --max-accuracy-loss {max_loss:g} does not allow it"
    return None


def _losses(reference: Sequence[Accuracy], other: Sequence[Accuracy]) -> list[float]:
    stated = {(each.dataset, each.split): each.value for each in other}
    return [
        each.value - stated[each.dataset, each.split]
        for each in reference
        if (each.dataset, each.split) in stated
    ]
