"""Data sets: read, checked, decoded by the service's own decoder, divided, measured.

::

    source ── read ──▶ pictures as they are ── divide (seeded) ──▶ train | validation | test
                                            ── measure mean and std (on train) ──▶ ImageDataset
"""

from __future__ import annotations

from model_export.config import DataConfig
from model_export.data import digits
from model_export.data.dataset import ImageDataset, Split, SplitName
from model_export.data.division import divide, thin
from model_export.data.pixels import contract_for, encode_png, measured
from model_export.errors import InvalidConfig

__all__ = ["ImageDataset", "Split", "SplitName", "encode_png", "load_dataset"]

VALIDATION_SHARE = 0.1
TEST_SHARE = 0.2


def load_dataset(config: DataConfig) -> ImageDataset:
    """The data set that ``config`` names.

    Raises:
        DataError: A file is missing, damaged or of the wrong shape; the message names it.
        InvalidConfig: The flags contradict each other.
    """
    if config.dataset == "digits":
        return _assembled(config, digits.LABELS, digits.SHAPE, *_three_way(digits.read(), config.seed))
    raise InvalidConfig(f"no data set '{config.dataset}'")


def _three_way(everything: Split, seed: int) -> tuple[Split, Split, Split]:
    validation, test, train = divide(everything.targets, (VALIDATION_SHARE, TEST_SHARE), seed)
    return everything.take(train), everything.take(validation), everything.take(test)


def _assembled(
    config: DataConfig,
    labels: tuple[str, ...],
    native: tuple[int, int, int],
    train: Split,
    validation: Split,
    test: Split,
) -> ImageDataset:
    contract = contract_for(config, native)
    train = train.take(thin(train.targets, config.limit, config.seed))
    return ImageDataset(
        name=config.dataset,
        labels=labels,
        contract=measured(contract, config, train.images),
        train=train,
        validation=validation,
        test=test,
    )
