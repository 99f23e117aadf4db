"""Pictures that a model file carries, with the logits that it must give for them.

The service replays them at every load, through its own decoder and its own execution provider: what
was proven here is proven again where it counts.
"""

from __future__ import annotations

import base64
import io
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from model_export.data import encode_png
from model_export.evaluation import open_session, predict
from service.artifact import ColourOrder, InputContract, Precision, SelfTest, SelfTestInstance
from service.images import decode

Tolerance = dict[Literal["cpu", "cuda", "tensorrt"], float]

# Relative to max|logit|. Float32 sums in another order differ by about 1e-6 in a network of this
# depth; a wrong weight, channel order or resize differs by more than 1e-2.
TOLERANCES: Final[Mapping[Precision, Tolerance]] = MappingProxyType(
    {
        Precision.FP32: {
            "cpu": 1e-4,  # other vector widths, other blocking
            "cuda": 1e-3,  # Winograd and FFT convolutions
            "tensorrt": 5e-3,  # fused kernels choose their own order and layout
        },
        # Eleven bits: a rounding is 5e-4 of a value.
        Precision.FP16: {"cpu": 2e-2, "cuda": 3e-2, "tensorrt": 3e-2},
        # A value between two of the 256 steps may fall on either; GPUs run the same steps in float.
        Precision.INT8: {"cpu": 5e-2, "cuda": 1e-1, "tensorrt": 1.5e-1},
    }
)

_RESIZED_BY = 1.5  # the last picture comes in another size, so that the resize is tested as well


def self_test_images(images: NDArray[np.uint8], contract: InputContract) -> tuple[bytes, ...]:
    """The pictures as PNG, and the last one again in another size.

    Args:
        images: uint8 [N, H, W, C], held back from training.
        contract: Whose colour order the pictures have.
    """
    if contract.colour_order is ColourOrder.BGR:
        images = images[..., ::-1]
    return *(encode_png(image) for image in images), _resized_png(images[-1])


def make_self_test(
    model_file: Path, encoded: Sequence[bytes], contract: InputContract, precision: Precision
) -> SelfTest:
    """The encoded pictures with the logits that ``model_file`` gives for them.

    Args:
        model_file: The ONNX file itself; its metadata may be missing.
        encoded: As `self_test_images` makes them.
        contract: How the service will decode them.
        precision: Of the file; it decides how far another machine may be off.
    """
    pixels = np.stack([decode(data, contract) for data in encoded])
    logits = predict(open_session(model_file), pixels, contract)
    return SelfTest(
        tolerance=TOLERANCES[precision],
        instances=tuple(
            SelfTestInstance(
                media_type="image/png", image=base64.b64encode(data), logits=tuple(map(float, row))
            )
            for data, row in zip(encoded, logits, strict=True)
        ),
    )


def _resized_png(image: NDArray[np.uint8]) -> bytes:
    picture = Image.open(io.BytesIO(encode_png(image)))
    size = (round(picture.width * _RESIZED_BY), round(picture.height * _RESIZED_BY))
    buffer = io.BytesIO()
    picture.resize(size, Image.Resampling.BICUBIC).save(buffer, "PNG")
    return buffer.getvalue()
