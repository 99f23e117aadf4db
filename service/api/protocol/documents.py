"""What goes over the wire at ``/v2`` and ``/v1``, as types. They make the OpenAPI document.

The hot routes read and write these shapes without building the models; a test validates their answers
against them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.repository import VersionState


class _Document(BaseModel):
    # protected_namespaces: `model_name` is the protocol's own word.
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class Live(_Document):
    """The process works."""

    live: Literal[True] = True


class Ready(_Document):
    """The process predicts."""

    ready: Literal[True] = True


class ServerMetadata(_Document):
    """Which server this is."""

    name: str
    version: str
    extensions: list[str]


class TensorMetadata(_Document):
    """One input or output of a model; -1 is the number of instances."""

    name: str
    datatype: str
    shape: list[int]


class ModelDescription(_Document):
    """What a client must know to use a model."""

    name: str
    versions: list[str]
    platform: str
    inputs: list[TensorMetadata]
    outputs: list[TensorMetadata]


class ModelReady(_Document):
    """The model predicts."""

    name: str
    ready: Literal[True] = True


class IndexRequest(BaseModel):
    """What to list."""

    ready: Annotated[bool, Field(strict=True, description="Only versions that predict.")] = False


class LoadRequest(BaseModel):
    """How to load a model. There is one way: as it lies in its folder."""

    parameters: Annotated[
        dict[str, object], Field(description="Of other servers (`config`, `file:…`); refused.")
    ] = {}


class IndexEntry(_Document):
    """One version of a model."""

    name: str
    version: str
    state: VersionState
    reason: Annotated[str, Field(description="Why it does not predict; empty where nothing is wrong.")]


class VersionAvailability(_Document):
    """TensorFlow Serving's word on one version."""

    version: str
    state: Literal["AVAILABLE"] = "AVAILABLE"
    status: dict[Literal["error_code", "error_message"], str] = {"error_code": "OK", "error_message": ""}


class ModelStatus(_Document):
    """A model's status, as TensorFlow Serving and KServe's protocol v1 say it."""

    name: str
    ready: Literal[True] = True
    model_version_status: list[VersionAvailability]


Parameter = bool | int | float | str
Parameters = dict[str, Parameter]


class InferInput(_Document):
    """The model's input: pixels, or encoded images."""

    name: Literal["images"]
    datatype: Annotated[
        Literal["UINT8", "BYTES"], Field(description="`UINT8`: pixels. `BYTES`: encoded images.")
    ]
    shape: Annotated[list[int], Field(description="`[N, H, W, C]` of UINT8; `[N]` or `[N, 1]` of BYTES.")]
    parameters: Annotated[
        Parameters | None,
        Field(description="`binary_data_size`: so many bytes behind the JSON are its data."),
    ] = None
    data: Annotated[
        list[object] | None,
        Field(description="Row-major, flat or nested: numbers from 0 to 255, or base64 texts."),
    ] = None


class InferOutputWanted(_Document):
    """An output that the client wants."""

    name: Literal["logits", "probabilities"]
    parameters: Annotated[
        Parameters | None,
        Field(description="`binary_data`: behind the JSON. `classification`: the n best, as text."),
    ] = None


class InferRequestBody(BaseModel):
    """A request of the Open Inference Protocol."""

    id: Annotated[str | None, Field(description="Comes back in the answer.")] = None
    parameters: Annotated[
        Parameters | None,
        Field(description="`binary_data_output`: every output behind the JSON. `timeout`: microseconds."),
    ] = None
    inputs: Annotated[list[InferInput], Field(min_length=1, max_length=1)]
    outputs: Annotated[list[InferOutputWanted] | None, Field(description="Without it, all.")] = None


class InferOutput(_Document):
    """One output of the answer."""

    name: Literal["logits", "probabilities"]
    datatype: Annotated[
        Literal["FP32", "BYTES"], Field(description="`BYTES`: `value:index:label` of the best.")
    ]
    shape: list[int]
    parameters: dict[Literal["binary_data_size"], int] | None = None
    data: Annotated[list[float] | list[str] | None, Field(description="Row-major.")] = None


class InferResponseBody(_Document):
    """An answer of the Open Inference Protocol."""

    model_name: str
    model_version: str
    id: Annotated[str, Field(description="The request's own, else the one in `X-Request-ID`.")]
    outputs: list[InferOutput]


class EncodedValue(_Document):
    """Bytes in JSON, as TensorFlow Serving has them."""

    b64: str


class NamedValue(_Document):
    """An instance with its input named."""

    images: EncodedValue | list[object]


class InstancesRequest(BaseModel):
    """A request in TensorFlow Serving's row form."""

    signature_name: Literal["serving_default", ""] = "serving_default"
    instances: Annotated[
        list[EncodedValue | NamedValue | list[object]],
        Field(min_length=1, description="Encoded images, or nested lists of pixels `[H, W, C]`."),
    ]


class InstancesResponse(_Document):
    """The probabilities of each instance."""

    predictions: list[list[float]]
