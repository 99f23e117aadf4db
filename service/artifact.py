"""The contract of a model file: what ``model.onnx`` says about itself.

::

    models/<name>/<version>/            the folder is the identity: copying it promotes or rolls back
        model.onnx                      graph + metadata_props["foldserve"] = JSON of `ModelMetadata`
        model.onnx.sha256               sidecar: the checksum in `sha256sum` form
        model.int8.onnx (+ .sha256)     other precisions of the same version, each whole in itself
        report.json, report.html        the model card

    graph    images  uint8   [batch, H, W, C]      normalisation is inside the graph
          →  logits, probabilities  float32 [batch, K]

Both halves of Foldserve meet here: `model_export` writes this, `service` reads it, and neither
knows more of the other.
"""

from __future__ import annotations

import re
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Final, Literal, Self

from pydantic import (
    AwareDatetime,
    Base64Bytes,
    BaseModel,
    ConfigDict,
    Field,
    ValidationError,
    model_validator,
)

from service.errors import ContractMismatch, InvalidFile

METADATA_KEY = "foldserve"
SCHEMA_VERSION: Final = 1
INPUT_NAME = "images"
LOGITS_NAME = "logits"
PROBABILITIES_NAME = "probabilities"

# One rule for model names everywhere: it keeps a name from leaving the repository folder.
MODEL_NAME_PATTERN = r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$"
VERSION_PATTERN = r"^[1-9][0-9]{0,8}$"

SIDECAR_SUFFIX: Final = ".sha256"
# The star is what `sha256sum --binary` writes.
_SIDECAR_LINE = re.compile(r"^(?P<digest>[0-9a-f]{64}) [ *](?P<name>\S+)\n?$")


class _Frozen(BaseModel):
    # protected_namespaces: `model_…` is this field's everyday word here.
    model_config = ConfigDict(frozen=True, extra="forbid", protected_namespaces=())


class Task(StrEnum):
    """What the probabilities mean."""

    MULTICLASS = "multiclass"  # softmax: exactly one label is right
    MULTILABEL = "multilabel"  # sigmoid: any number of labels is right


class Resize(StrEnum):
    """How a picture of another size becomes H × W."""

    STRETCH = "stretch"  # both sides scaled independently
    SHORTER_SIDE = "shorter_side"  # shorter side to `resize_to`, then the centre H × W
    LETTERBOX = "letterbox"  # longer side fits, the rest is `fill`


class Interpolation(StrEnum):
    """Resampling filter, antialiased when it shrinks."""

    NEAREST = "nearest"
    BILINEAR = "bilinear"
    BICUBIC = "bicubic"
    LANCZOS = "lanczos"


class ColourOrder(StrEnum):
    """The order of the channels that the graph expects."""

    RGB = "rgb"
    BGR = "bgr"
    GRAY = "gray"


class Precision(StrEnum):
    """The arithmetic of the file's weights."""

    FP32 = "fp32"
    FP16 = "fp16"
    INT8 = "int8"

    @property
    def file_name(self) -> str:
        """The model file of this precision inside a version folder."""
        return "model.onnx" if self is Precision.FP32 else f"model.{self.value}.onnx"


class InputContract(_Frozen):
    """How an encoded image becomes the graph's input: uint8 [H, W, C]."""

    height: int = Field(ge=1, le=4096)
    width: int = Field(ge=1, le=4096)
    channels: Literal[1, 3]
    colour_order: ColourOrder
    resize: Resize = Resize.STRETCH
    resize_to: int | None = Field(default=None, ge=1, le=8192)
    interpolation: Interpolation = Interpolation.BILINEAR
    # One value a channel, in `colour_order`; the background of letterboxing and of transparency.
    fill: tuple[Annotated[int, Field(ge=0, le=255)], ...]
    # Of pixels in 0…1, one value a channel. Information only: the graph has them inside.
    mean: tuple[float, ...]
    std: tuple[Annotated[float, Field(gt=0)], ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if (self.channels == 1) != (self.colour_order is ColourOrder.GRAY):
            raise ValueError(
                f"colour_order {self.colour_order.value} does not have {self.channels} channel(s)"
            )
        for field in ("fill", "mean", "std"):
            if len(getattr(self, field)) != self.channels:
                raise ValueError(f"{field} must have {self.channels} value(s), one a channel")
        if (self.resize is Resize.SHORTER_SIDE) != (self.resize_to is not None):
            raise ValueError("resize_to belongs to resize=shorter_side, and only to it")
        if self.resize_to is not None and self.resize_to < max(self.height, self.width):
            raise ValueError(
                f"resize_to {self.resize_to} is smaller than the {self.height}x{self.width} crop"
            )
        return self


class FoldSummary(_Frozen):
    """What became of the BatchNorms, in numbers; the whole story is in ``report.json``."""

    objective: Literal["fewest", "speed"]
    batch_norms: int = Field(ge=0)
    folded: int = Field(ge=0)
    kept: int = Field(ge=0)
    affine_maps_left: int = Field(ge=0)
    # max|Δ| / max|reference| of the logits, both programs run in float64.
    error: float = Field(ge=0)


class Accuracy(_Frozen):
    """Top-1 (multiclass) or mean per-label (multilabel) accuracy on one named split."""

    dataset: str
    split: str
    instances: int = Field(ge=1)
    value: float = Field(ge=0, le=1)


class Parity(_Frozen):
    """One proof that two forms of the network agree: max|Δ| / max|reference| against its bound."""

    check: str
    error: float = Field(ge=0)
    tolerance: float = Field(ge=0)
    instances: int = Field(ge=1)


class Histogram(_Frozen):
    """Shares of a distribution: ``len(edges) - 1`` inner bins and the two open ends."""

    edges: tuple[float, ...] = Field(min_length=2)
    shares: tuple[float, ...]

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if list(self.edges) != sorted(set(self.edges)):
            raise ValueError("edges must increase strictly")
        if len(self.shares) != len(self.edges) + 1:
            raise ValueError(
                f"{len(self.edges)} edges need {len(self.edges) + 1} shares, got {len(self.shares)}"
            )
        return self


class ReferenceDistributions(_Frozen):
    """What training saw, for drift: of the decoded pixels (0…255) and of the predictions."""

    instances: int = Field(ge=1)
    mean: Histogram  # of one image's pixels
    contrast: Histogram  # standard deviation of one image's pixels
    size: Histogram | None  # sqrt(width · height) before the resize; None where it was never known
    confidence: Histogram  # the top probability
    labels: tuple[Annotated[float, Field(ge=0, le=1)], ...]  # predicted share of each label


class Producer(_Frozen):
    """Who made the file, with what."""

    foldserve: str
    git_commit: str | None
    torch: str | None
    onnx: str
    opset: int = Field(ge=1)


class SelfTestInstance(_Frozen):
    """An encoded image and the logits it must give."""

    media_type: str = Field(pattern=r"^image/[a-z0-9.+-]+$")
    image: Base64Bytes
    logits: tuple[float, ...]


class SelfTest(_Frozen):
    """Instances replayed through decode path and execution provider before a model serves.

    The tolerance is relative to max|logit| over the instances, one for each kind of provider;
    the top-1 label must agree as well.
    """

    tolerance: dict[Literal["cpu", "cuda", "tensorrt"], Annotated[float, Field(gt=0, le=0.5)]]
    instances: tuple[SelfTestInstance, ...] = Field(min_length=1)


class ModelMetadata(_Frozen):
    """The JSON document under `METADATA_KEY` in a model file."""

    schema_version: Literal[1] = SCHEMA_VERSION
    name: str = Field(pattern=MODEL_NAME_PATTERN)
    version: str = Field(pattern=VERSION_PATTERN)
    created_at: AwareDatetime
    task: Task
    threshold: float = Field(default=0.5, gt=0, lt=1)  # multilabel: a label is predicted from here on
    labels: tuple[str, ...] = Field(min_length=2)
    input: InputContract
    precision: Precision
    architecture: str
    fold: FoldSummary | None  # None: an adopted file, whose graph was folded or not by others
    accuracy: tuple[Accuracy, ...] = ()
    parity: tuple[Parity, ...] = ()
    reference: ReferenceDistributions | None = None
    producer: Producer
    selftest: SelfTest

    @model_validator(mode="after")
    def _consistent(self) -> Self:
        if len(set(self.labels)) != len(self.labels):
            raise ValueError("labels must differ from each other")
        for position, instance in enumerate(self.selftest.instances):
            if len(instance.logits) != len(self.labels):
                raise ValueError(
                    f"selftest instance {position}: {len(instance.logits)} logits, {len(self.labels)} labels"
                )
        if self.reference is not None and len(self.reference.labels) != len(self.labels):
            raise ValueError("reference.labels must have one share a label")
        return self

    def to_props(self) -> dict[str, str]:
        """The ``metadata_props`` of the ONNX file."""
        return {METADATA_KEY: self.model_dump_json()}


def parse_metadata(props: dict[str, str], source: Path) -> ModelMetadata:
    """The metadata in a model file's ``metadata_props``.

    Args:
        props: ``metadata_props`` as a mapping (``session.get_modelmeta().custom_metadata_map``).
        source: The file, for the message.

    Raises:
        ContractMismatch: There is none, or it is not of this schema.
    """
    if METADATA_KEY not in props:
        raise ContractMismatch(
            f"{source}: no '{METADATA_KEY}' metadata; make the file with "
            "`python -m model_export run`, or wrap it with `python -m model_export adopt`"
        )
    try:
        return ModelMetadata.model_validate_json(props[METADATA_KEY])
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "document"
        raise ContractMismatch(
            f"{source}: metadata field '{where}': {first['msg']} ({error.error_count()} problem(s) in all); "
            "export the model again with this version of Foldserve"
        ) from error


def sidecar_path(model_file: Path) -> Path:
    """The checksum file beside a model file."""
    return model_file.with_name(model_file.name + SIDECAR_SUFFIX)


def format_sidecar(digest: str, model_file: Path) -> str:
    """The sidecar's text, as ``sha256sum`` writes and checks it."""
    return f"{digest}  {model_file.name}\n"


def parse_sidecar(text: str, model_file: Path) -> str:
    """The digest in a sidecar.

    Raises:
        InvalidFile: The text is not one ``sha256sum`` line for this file.
    """
    match = _SIDECAR_LINE.match(text)
    if match is None or match["name"] != model_file.name:
        raise InvalidFile(f"{sidecar_path(model_file)}: not a `sha256sum` line for {model_file.name}")
    return match["digest"]
