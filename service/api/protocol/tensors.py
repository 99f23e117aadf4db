"""Tensors as the Open Inference Protocol names them, whatever carries them.

::

    input    images         UINT8 [N, H, W, C]    the pixels that the graph takes
                            BYTES [N] or [N, 1]   encoded images, which the service decodes
    outputs  logits         FP32  [N, K]
             probabilities  FP32  [N, K]
             either, with `classification: n`     BYTES [N, min(n, K)] of "value:index:label"

Nothing is looked at before its declared shape is known to be right, so that a request is admitted by its
number of instances before any of them costs anything.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Final, TypeAlias

import numpy as np
from numpy.typing import NDArray

from service.api.inference import Instance, Pixels
from service.api.payload import decoded_text
from service.artifact import INPUT_NAME, LOGITS_NAME, PROBABILITIES_NAME, InputContract
from service.batcher import Row
from service.errors import InvalidTensor, RequestError, TooManyImages

OUTPUT_NAMES: Final = (LOGITS_NAME, PROBABILITIES_NAME)
# Every element of a BYTES tensor in raw form begins with its length.
_PREFIX_BYTES: Final = 4

Floats: TypeAlias = NDArray[np.float32]


@dataclass(frozen=True, slots=True)
class InputTensor:
    """One input as the request declares it, and its content in one of three forms.

    Attributes:
        name: As sent.
        datatype: As sent.
        shape: As sent.
        content: Raw (row-major; elements of BYTES each behind their length), encoded images, or numbers and
            texts as JSON has them, flat or nested.
    """

    name: str
    datatype: str
    shape: Sequence[int]
    content: memoryview | Sequence[bytes] | Sequence[object]


@dataclass(frozen=True, slots=True)
class RequestedOutput:
    """One output that the client wants.

    Attributes:
        name: One of `OUTPUT_NAMES`.
        classes: How many of the best, as text; 0: the tensor itself.
        is_binary: Whether behind the JSON.
    """

    name: str
    classes: int = 0
    is_binary: bool = False


@dataclass(frozen=True, slots=True)
class InferRequest:
    """A request of the Open Inference Protocol.

    Attributes:
        id: The client's name for it; empty where there is none.
        inputs: As sent.
        outputs: What is wanted; at least one.
        timeout_s: What the client says of its patience; None: nothing.
    """

    id: str
    inputs: Sequence[InputTensor]
    outputs: Sequence[RequestedOutput]
    timeout_s: float | None = None


@dataclass(frozen=True, slots=True)
class OutputTensor:
    """One output of the answer.

    Attributes:
        values: float32 [N, K], or N rows of texts.
    """

    name: str
    values: Floats | list[list[bytes]]
    is_binary: bool

    @property
    def datatype(self) -> str:
        """As the protocol names it."""
        return "FP32" if isinstance(self.values, np.ndarray) else "BYTES"

    @property
    def shape(self) -> list[int]:
        """[N, columns]."""
        return [len(self.values), len(self.values[0])]

    @property
    def texts(self) -> list[bytes]:
        """Of BYTES, row-major."""
        return list(chain.from_iterable(self.values))

    def raw(self) -> bytes:
        """Row-major little-endian; elements of BYTES each behind their length."""
        if isinstance(self.values, np.ndarray):
            return self.values.astype("<f4", copy=False).tobytes()
        return b"".join(len(text).to_bytes(_PREFIX_BYTES, "little") + text for text in self.texts)


# Requests.


def images_of(inputs: Sequence[InputTensor], contract: InputContract, max_images: int) -> InputTensor:
    """The one input of the model, its declaration checked; ``shape[0]`` is the number of instances.

    Raises:
        InvalidTensor: None, several, or one with another name, datatype or shape.
        TooManyImages: More than ``max_images``.
    """
    if len(inputs) != 1 or inputs[0].name != INPUT_NAME:
        names = ", ".join(f"'{tensor.name}'" for tensor in inputs) or "none"
        raise InvalidTensor(f"the model has one input, '{INPUT_NAME}'; the request has {names}")
    tensor = inputs[0]
    shape = list(tensor.shape)
    if not (
        (tensor.datatype == "UINT8" and len(shape) == 4 and shape[1:] == _instance_shape(contract))
        or (tensor.datatype == "BYTES" and shape[1:] in ([], [1]))
    ):
        raise InvalidTensor(f"input {_expected(contract)}; got {tensor.datatype} {shape}")
    if not shape or shape[0] < 1:
        raise InvalidTensor(f"input {_expected(contract)}; a shape of {shape} holds no instance")
    if shape[0] > max_images:
        raise TooManyImages(f"{shape[0]} instances in one request; at most {max_images} are taken")
    return tensor


def instances_of(tensor: InputTensor) -> Sequence[Instance]:
    """The instances of a tensor that `images_of` gave; raw pixels are not copied.

    Raises:
        InvalidTensor: The content is not what is declared.
    """
    if tensor.datatype == "BYTES":
        return _encoded(tensor)
    if isinstance(tensor.content, memoryview):
        return list(_raw_pixels(tensor.content, tensor.shape))
    shape = tensor.shape
    numbers = tensor.content
    if len(numbers) and isinstance(numbers[0], list):
        numbers = flattened(numbers, shape)
    return list(pixels_of(numbers, shape))


def pixels_of(numbers: Sequence[object], shape: Sequence[int]) -> Pixels:
    """uint8 of this shape, of numbers in row-major order.

    Raises:
        InvalidTensor: Too many, too few, or not from 0 to 255.
    """
    try:
        content = bytes(numbers)  # type: ignore[arg-type]  # it checks each number, faster than anything else
    except (TypeError, ValueError) as exc:
        raise InvalidTensor(
            f"input '{INPUT_NAME}': data must be whole numbers from 0 to 255, flat or nested as its shape"
        ) from exc
    return _raw_pixels(memoryview(content), shape)


def _raw_pixels(content: memoryview, shape: Sequence[int]) -> Pixels:
    size = int(np.prod(shape, dtype=object))
    if len(content) != size:
        raise InvalidTensor(
            f"input '{INPUT_NAME}': a shape of {list(shape)} is {size} elements; got {len(content)}"
        )
    return np.frombuffer(content, np.uint8).reshape(shape)


def flattened(nested: Sequence[object], shape: Sequence[int]) -> Sequence[object]:
    """Nested lists of this shape as one list, row-major.

    Raises:
        InvalidTensor: They are not of this shape.
    """
    level = nested if len(nested) == shape[0] else []
    for size in shape[1:]:
        if not level or not all(type(row) is list and len(row) == size for row in level):
            raise InvalidTensor(f"input '{INPUT_NAME}': data is not nested as its shape, {list(shape)}")
        level = list(chain.from_iterable(level))  # type: ignore[arg-type]  # every row is a list
    return level


def _encoded(tensor: InputTensor) -> list[Instance]:
    """The encoded images of a BYTES tensor."""
    n = tensor.shape[0]
    if isinstance(tensor.content, memoryview):
        return list(_elements(tensor.content, n))
    content = tensor.content
    if len(tensor.shape) == 2 and content and isinstance(content[0], list):
        content = flattened(content, tensor.shape)
    if len(content) != n:
        raise InvalidTensor(
            f"input '{INPUT_NAME}': a shape of {list(tensor.shape)}; got {len(content)} elements"
        )
    return [_encoded_image(element, position) for position, element in enumerate(content)]


def _elements(raw: memoryview, n: int) -> list[memoryview]:
    """The n elements of a raw BYTES tensor, as views into it."""
    elements, at = [], 0
    for position in range(n):
        start = at + _PREFIX_BYTES
        at = start + int.from_bytes(raw[start - _PREFIX_BYTES : start], "little")
        if at > len(raw):
            raise InvalidTensor(f"input '{INPUT_NAME}': the data ends within element {position} of {n}")
        elements.append(raw[start:at])
    if at != len(raw):
        raise InvalidTensor(f"input '{INPUT_NAME}': {len(raw) - at} bytes behind the last of {n} elements")
    return elements


def _encoded_image(element: object, position: int) -> Instance:
    if isinstance(element, bytes):
        return element
    if not isinstance(element, str):
        raise InvalidTensor(
            f"input '{INPUT_NAME}': element {position} must be a string of base64 or a data URI"
        )
    image = decoded_text(element)
    if isinstance(image, RequestError):
        raise InvalidTensor(f"input '{INPUT_NAME}': element {position}: {image.detail}")
    return image


def _instance_shape(contract: InputContract) -> list[int]:
    return [contract.height, contract.width, contract.channels]


def _expected(contract: InputContract) -> str:
    return f"'{INPUT_NAME}' must be UINT8 {[-1, *_instance_shape(contract)]}, or BYTES [-1] of encoded images"


# Answers.


def check_output(name: str) -> str:
    """The name, if the model has such an output.

    Raises:
        InvalidTensor: It has not.
    """
    if name not in OUTPUT_NAMES:
        raise InvalidTensor(f"the model has no output '{name}'; it has {' and '.join(OUTPUT_NAMES)}")
    return name


def check_distinct(wanted: Sequence[RequestedOutput]) -> Sequence[RequestedOutput]:
    """The outputs, if each is wanted once: else a short request could ask for an answer of any length.

    Raises:
        InvalidTensor: One is wanted twice.
    """
    if len(wanted) > len({output.name for output in wanted}):
        raise InvalidTensor("an output is asked for twice; every output can be had once")
    return wanted


def check_classes(value: object) -> int:
    """The parameter ``classification``.

    Raises:
        InvalidTensor: It is no whole number from 1 on.
    """
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
        raise InvalidTensor(f"parameter 'classification' must be a whole number from 1 on, not {value!r}")
    return value


def outputs_of(
    rows: Sequence[Row], labels: Sequence[str], wanted: Sequence[RequestedOutput]
) -> list[OutputTensor]:
    """The tensors of an answer, in the order in which they were wanted."""
    return [_output(rows, labels, output) for output in wanted]


def _output(rows: Sequence[Row], labels: Sequence[str], wanted: RequestedOutput) -> OutputTensor:
    if wanted.name == LOGITS_NAME:
        values = np.stack([row.logits for row in rows])
    else:
        values = np.stack([row.probabilities for row in rows])
    if wanted.classes:
        return OutputTensor(wanted.name, _classes(values, labels, wanted.classes), wanted.is_binary)
    return OutputTensor(wanted.name, values, wanted.is_binary)


def _classes(values: Floats, labels: Sequence[str], n: int) -> list[list[bytes]]:
    """The n best of every row as ``value:index:label``, best first; of equals the lower index first."""
    order = np.argsort(-values, axis=1, kind="stable")[:, :n].tolist()
    return [
        [_class_text(row[index], index, labels[index]) for index in best]
        for row, best in zip(values, order, strict=True)
    ]


def _class_text(value: np.float32, index: int, label: str) -> bytes:
    # As many digits as tell it from its neighbours, and never an exponent: some clients split and match.
    return f"{np.format_float_positional(value, trim='0')}:{index}:{label}".encode()
