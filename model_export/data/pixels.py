"""From the pictures of a data set to those of its contract, and what is measured on them.

The service meets encoded pictures only. So those that need a resize or another colour order are
encoded and take the service's own decode path: one implementation, no skew between training and
serving.
"""

from __future__ import annotations

import io
from typing import Final

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pydantic import ValidationError
from rich.console import Console
from rich.progress import track

from model_export.config import DataConfig
from model_export.errors import DataError, InvalidConfig
from service.artifact import ColourOrder, InputContract, Interpolation, Resize
from service.images import decode


def contract_for(config: DataConfig, native: tuple[int, int, int] | None) -> InputContract:
    """The contract that ``config`` asks for; mean 0 and std 1 where they are to be measured.

    Args:
        config: What the user said.
        native: The data set's own C, H, W; None: it has none, and ``--input`` is needed.

    Raises:
        InvalidConfig: The flags contradict each other, or the size is unknown.
    """
    shape = config.input or native
    if shape is None:
        raise InvalidConfig(f"--dataset {config.dataset} has pictures of any size: say --input CxHxW")
    channels, height, width = shape
    order = config.channels or ("gray" if channels == 1 else "rgb")
    try:
        return InputContract.model_validate(
            {
                "height": height,
                "width": width,
                "channels": channels,
                "colour_order": ColourOrder(order),
                "resize": Resize(config.resize),
                "resize_to": config.resize_to,
                "interpolation": Interpolation(config.interpolation),
                "fill": (0,) * channels,
                "mean": _a_channel(config.mean or (0.0,), channels),
                "std": _a_channel(config.std or (1.0,), channels),
            }
        )
    except ValidationError as error:
        raise InvalidConfig(_refusal(error, shape)) from error


def _a_channel(numbers: tuple[float, ...], channels: int) -> tuple[float, ...]:
    """One number stands for all channels."""
    return numbers * channels if len(numbers) == 1 else numbers


# How the contract's own words are spelled on the command line.
_FLAGS: Final = {
    "colour_order ": "--channels ",
    "resize_to ": "--resize-to ",
    "resize=": "--resize ",
    "mean ": "--mean ",
    "std ": "--std ",
}


def _refusal(error: ValidationError, shape: tuple[int, int, int]) -> str:
    """The flag that the contract refuses, and why; its own words where several do not go together."""
    first = error.errors()[0]
    reason = first["msg"].removeprefix("Value error, ")
    field = str(first["loc"][0]) if first["loc"] else ""
    if field in ("height", "width", "channels"):
        return f"--input {'x'.join(map(str, shape))}: {field}: {reason}"
    if not field:
        for word, flag in _FLAGS.items():
            reason = reason.replace(word, flag)
        return reason
    return f"--{field.replace('_', '-')} {first['input']}: {reason}"


def measured(contract: InputContract, config: DataConfig, images: NDArray[np.uint8]) -> InputContract:
    """``contract`` with the mean and std of ``images`` where the user gave none.

    Args:
        contract: As `contract_for` makes it.
        config: What the user said.
        images: uint8 [N, H, W, C], the training split.

    Raises:
        DataError: A channel is the same everywhere, so it has no deviation to divide by.
    """
    mean, std = pixel_statistics(images)
    if config.std is None and min(std) == 0:
        raise DataError(f"{config.dataset}: a channel has the same value in every pixel of every picture")
    return contract.model_copy(
        update={
            "mean": contract.mean if config.mean else mean,
            "std": contract.std if config.std else std,
        }
    )


def pixel_statistics(images: NDArray[np.uint8]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Mean and standard deviation of each channel, of pixels in 0…1; exact, by counting values."""
    values = np.arange(256) / 255
    means, deviations = [], []
    for channel in range(images.shape[-1]):
        counts = np.bincount(images[..., channel].ravel(), minlength=256)
        mean = float(np.average(values, weights=counts))
        means.append(mean)
        deviations.append(float(np.sqrt(np.average((values - mean) ** 2, weights=counts))))
    return tuple(means), tuple(deviations)


def conformed(
    images: NDArray[np.uint8], contract: InputContract, *, console: Console | None = None
) -> NDArray[np.uint8]:
    """uint8 [N, H, W, C] as the contract says, from the data set's own ``images`` [N, h, w, c].

    Args:
        images: Not modified.
        contract: What they become.
        console: Where progress is shown; None: nowhere.
    """
    natural = ColourOrder.GRAY if contract.channels == 1 else ColourOrder.RGB
    shape = (contract.height, contract.width, contract.channels)
    if images.shape[1:] == shape and contract.colour_order is natural:
        return images
    shown = track(images, "resizing", len(images), console=console or Console(quiet=True))
    return np.stack([decode(encode_png(image), contract) for image in shown])


def encode_png(image: NDArray[np.uint8]) -> bytes:
    """A picture, uint8 [H, W, C] with one (gray) or three (RGB) channels, as PNG."""
    buffer = io.BytesIO()
    Image.fromarray(image.squeeze(-1) if image.shape[-1] == 1 else image).save(buffer, "PNG")
    return buffer.getvalue()
