"""Every way an export can fail, as one tree.

::

    ExportError                 exit code and one clear line at the command line
    ├── InvalidConfig           a flag or a combination of flags that cannot be
    ├── DataError               a data set that cannot be used; names the file and the remedy
    ├── ModelError              a network that cannot be built, loaded or exported
    ├── TrainingDiverged        the loss is no number any more
    ├── FoldRefused             a BatchNorm that is no constant affine map; names it
    ├── VerificationFailed      a proof that did not hold; nothing was published
    └── PublishFailed           the model repository could not take the version
"""

from __future__ import annotations


class ExportError(Exception):
    """The root: everything that model_export raises on purpose."""


class InvalidConfig(ExportError):
    """A flag, or a combination of flags, that cannot be."""


class DataError(ExportError):
    """A data set that cannot be used. The message names the file, the value and the remedy."""


class ModelError(ExportError):
    """A network that cannot be built, loaded or exported."""


class TrainingDiverged(ExportError):
    """The loss became infinite or no number. The message names the epoch and the remedy."""


class FoldRefused(ExportError):
    """A BatchNorm that is no constant affine map: training mode, or no running statistics.

    Args:
        name: Module path of the BatchNorm, as ``model.named_modules()`` spells it.
        reason: Why it cannot be folded.
    """

    def __init__(self, name: str, reason: str) -> None:
        super().__init__(f"{name}: {reason}")
        self.name = name
        self.reason = reason


class VerificationFailed(ExportError):
    """A proof that did not hold. Nothing was published."""


class PublishFailed(ExportError):
    """The model repository could not take the version. What was there before still is."""
