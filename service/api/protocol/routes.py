"""The routes of the protocols that are asked now and then: health, metadata, status."""

from __future__ import annotations

from fastapi import APIRouter

from service import __version__
from service.api.documentation import problem_responses
from service.api.health import Vitals
from service.api.inference import Resolve
from service.api.protocol.documents import (
    Live,
    ModelDescription,
    ModelReady,
    ModelStatus,
    Ready,
    ServerMetadata,
    TensorMetadata,
    VersionState,
)
from service.api.protocol.tensors import OUTPUT_NAMES
from service.artifact import INPUT_NAME
from service.errors import NotReady, Reason
from service.repository import ServedModel

SERVER_NAME = "foldserve"
EXTENSIONS = ("binary_tensor_data", "classification")
PLATFORM = "onnxruntime_onnx"

_UNKNOWN = problem_responses(Reason.MODEL_NOT_FOUND, Reason.NOT_READY)


def protocol_router(vitals: Vitals, resolve: Resolve) -> APIRouter:
    """Open Inference Protocol v2 without inference, and TensorFlow Serving's model status."""
    router = APIRouter()
    router.include_router(_server_router(vitals))
    router.include_router(_model_router(resolve))
    router.include_router(_status_router(resolve))
    return router


def _server_router(vitals: Vitals) -> APIRouter:
    router = APIRouter(tags=["open inference protocol"])

    @router.get("/v2")
    async def server_metadata() -> ServerMetadata:
        """Name, version and extensions of this server."""
        return server_description()

    @router.get("/v2/health/live", responses=problem_responses(Reason.NOT_READY))
    async def server_live() -> Live:
        """As `/livez`."""
        if (problem := vitals.why_not_alive()) is not None:
            raise problem
        return Live()

    @router.get("/v2/health/ready", responses=problem_responses(Reason.NOT_READY, Reason.SHUTTING_DOWN))
    async def server_ready() -> Ready:
        """As `/readyz`."""
        if (problem := vitals.why_not_ready()) is not None:
            raise problem
        return Ready()

    return router


def _model_router(resolve: Resolve) -> APIRouter:
    router = APIRouter(tags=["open inference protocol"], responses=_UNKNOWN)

    @router.get("/v2/models/{model}")
    @router.get("/v2/models/{model}/versions/{version}")
    async def model_metadata(model: str, version: str | None = None) -> ModelDescription:
        """Inputs and outputs of a model."""
        return model_description(resolve(model, version, b""))

    @router.get("/v2/models/{model}/ready")
    @router.get("/v2/models/{model}/versions/{version}/ready")
    async def model_ready(model: str, version: str | None = None) -> ModelReady:
        """Whether a model predicts now."""
        return ModelReady(name=ready_model(resolve, model, version).name)

    return router


def _status_router(resolve: Resolve) -> APIRouter:
    router = APIRouter(tags=["tensorflow serving"], responses=_UNKNOWN)

    @router.get("/v1/models/{model}")
    @router.get("/v1/models/{model}/versions/{version}")
    async def model_status(model: str, version: str | None = None) -> ModelStatus:
        """The versions of a model that predict now."""
        served = ready_model(resolve, model, version)
        return ModelStatus(name=served.name, model_version_status=[VersionState(version=served.version)])

    return router


def server_description() -> ServerMetadata:
    """Which server this is."""
    return ServerMetadata(name=SERVER_NAME, version=__version__, extensions=list(EXTENSIONS))


def model_description(model: ServedModel) -> ModelDescription:
    """What a client must know to use a model."""
    contract, classes = model.metadata.input, len(model.labels)
    pixels = TensorMetadata(
        name=INPUT_NAME, datatype="UINT8", shape=[-1, contract.height, contract.width, contract.channels]
    )
    return ModelDescription(
        name=model.name,
        versions=[model.version],
        platform=PLATFORM,
        inputs=[pixels],
        outputs=[TensorMetadata(name=name, datatype="FP32", shape=[-1, classes]) for name in OUTPUT_NAMES],
    )


def ready_model(resolve: Resolve, model: str, version: str | None) -> ServedModel:
    """A model that predicts now.

    Raises:
        ModelNotFound: There is no such one.
        NotReady: It is there, and does not.
    """
    served = resolve(model, version, b"")
    if not served.batcher.is_ready:
        raise NotReady(f"model '{served.name}' takes no requests now")
    return served
