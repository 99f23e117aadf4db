"""What goes over the wire at ``/predict`` and the probes, as types. They make the OpenAPI document.

The hot route writes these shapes without building the models; a test validates its answers
against them.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field

from service.errors import Reason


class _Document(BaseModel):
    # protected_namespaces: `model` is this field's everyday word here.
    model_config = ConfigDict(extra="forbid", protected_namespaces=())


class PredictRequest(_Document):
    """The JSON form of a request."""

    images: Annotated[
        list[str],
        Field(
            min_length=1,
            description="Each image as padded base64 (RFC 4648) or a data URI (`data:image/png;base64,…`).",
            examples=[["iVBORw0KGgoAAAANSUhEUgAA…"]],
        ),
    ]


class ScoredLabel(_Document):
    """One class and how probable it is."""

    label: str
    index: Annotated[int, Field(ge=0, description="Position of the label in the model's list.")]
    probability: Annotated[float, Field(ge=0, le=1, description="Not rounded.")]


class Prediction(ScoredLabel):
    """The most probable class of one image, and the runners-up."""

    top: Annotated[list[ScoredLabel], Field(description="Most probable first; as many as `top_k` asks for.")]
    labels: Annotated[
        list[ScoredLabel] | None,
        Field(description="Multi-label models only: every label from the model's threshold on."),
    ] = None


class InstanceErrorDetail(_Document):
    """Why one image has no prediction."""

    reason: Reason
    detail: str


class InstanceError(_Document):
    """Stands in the place of a bad image's prediction while the others get theirs."""

    error: InstanceErrorDetail


class PredictResponse(_Document):
    """Predictions in the order of the images."""

    model: str
    version: str
    request_id: str
    predictions: list[Prediction | InstanceError]


class Problem(_Document):
    """An error (RFC 9457)."""

    type: str
    title: str
    status: Annotated[int, Field(ge=400, le=599)]
    detail: str
    instance: str
    reason: Reason
    request_id: str
    error: Annotated[str, Field(description="The detail again, for clients of inference protocols.")]


class Health(_Document):
    """The answer of a probe that is satisfied."""

    status: Literal["alive", "ready"]
