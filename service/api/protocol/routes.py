"""The routes of the protocols that are asked now and then: health, metadata, status."""

from __future__ import annotations

from collections.abc import Iterable

from fastapi import APIRouter

from service import __version__
from service.api.administration import CHANGE_REASONS
from service.api.documentation import problem_responses
from service.api.health import Vitals
from service.api.protocol.documents import (
    IndexEntry,
    IndexRequest,
    Live,
    LoadRequest,
    ModelDescription,
    ModelReady,
    ModelStatus,
    Ready,
    ServerMetadata,
    TensorMetadata,
    VersionAvailability,
)
from service.api.protocol.tensors import OUTPUT_NAMES
from service.artifact import INPUT_NAME
from service.errors import InvalidParameter, NotReady, Reason
from service.repository import Changes, Repository, ServedModel

SERVER_NAME = "foldserve"
EXTENSIONS = ("binary_tensor_data", "classification", "model_repository")
PLATFORM = "onnxruntime_onnx"

_UNKNOWN = problem_responses(Reason.MODEL_NOT_FOUND, Reason.NOT_READY)


def protocol_router(vitals: Vitals, repository: Repository, changes: Changes) -> APIRouter:
    """Open Inference Protocol v2 without inference, and TensorFlow Serving's model status."""
    router = APIRouter()
    router.include_router(_server_router(vitals))
    router.include_router(_model_router(repository))
    router.include_router(_repository_router(repository, changes))
    router.include_router(_status_router(repository))
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


def _model_router(repository: Repository) -> APIRouter:
    router = APIRouter(tags=["open inference protocol"], responses=_UNKNOWN)

    @router.get("/v2/models/{model}")
    @router.get("/v2/models/{model}/versions/{version}")
    async def model_metadata(model: str, version: str | None = None) -> ModelDescription:
        """Inputs and outputs of a model."""
        return model_description(repository, model, version)

    @router.get("/v2/models/{model}/ready")
    @router.get("/v2/models/{model}/versions/{version}/ready")
    async def model_ready(model: str, version: str | None = None) -> ModelReady:
        """Whether a model predicts now."""
        return ModelReady(name=ready_model(repository, model, version).name)

    return router


def _repository_router(repository: Repository, changes: Changes) -> APIRouter:
    router = APIRouter(prefix="/v2/repository", tags=["open inference protocol"])
    changing = problem_responses(*CHANGE_REASONS)

    @router.post("/index")
    async def repository_index(request: IndexRequest | None = None) -> list[IndexEntry]:
        """Every version of every model: whether it predicts, and why not."""
        return repository_entries(repository, ready_only=request is not None and request.ready)

    @router.post("/models/{model}/load", responses=changing)
    async def load_model(model: str, request: LoadRequest | None = None) -> None:
        """Look at a model's folder, and serve its newest good version."""
        await load(changes, model, () if request is None else request.parameters)

    @router.post("/models/{model}/unload", responses=changing)
    async def unload_model(model: str) -> None:
        """Stop serving a model until it is loaded again; what was admitted is finished."""
        await changes.unload(model)

    return router


def _status_router(repository: Repository) -> APIRouter:
    router = APIRouter(tags=["tensorflow serving"], responses=_UNKNOWN)

    @router.get("/v1/models/{model}")
    @router.get("/v1/models/{model}/versions/{version}")
    async def model_status(model: str, version: str | None = None) -> ModelStatus:
        """The versions of a model that predict now; without a version, all that are loaded."""
        named = ready_model(repository, model, version)
        served = repository.loaded(named.name) if version is None else (named,)
        states = [VersionAvailability(version=each.version) for each in served if each.batcher.is_ready]
        return ModelStatus(name=named.name, model_version_status=states)

    return router


def server_description() -> ServerMetadata:
    """Which server this is."""
    return ServerMetadata(name=SERVER_NAME, version=__version__, extensions=list(EXTENSIONS))


def model_description(repository: Repository, name: str, version: str | None) -> ModelDescription:
    """What a client must know to use a model.

    Raises:
        ModelNotFound: There is no such one.
        NotReady: Nothing is served yet.
    """
    model = repository.resolve(name, version)
    contract, classes = model.metadata.input, len(model.labels)
    pixels = TensorMetadata(
        name=INPUT_NAME, datatype="UINT8", shape=[-1, contract.height, contract.width, contract.channels]
    )
    return ModelDescription(
        name=model.name,
        versions=[each.version for each in repository.loaded(model.name)],
        platform=PLATFORM,
        inputs=[pixels],
        outputs=[TensorMetadata(name=name, datatype="FP32", shape=[-1, classes]) for name in OUTPUT_NAMES],
    )


def repository_entries(repository: Repository, *, ready_only: bool) -> list[IndexEntry]:
    """The repository's index, as the protocol has it."""
    return [
        IndexEntry(name=line.name, version=line.version, state=line.state, reason=line.reason)
        for line in repository.index(ready_only=ready_only)
    ]


async def load(changes: Changes, model: str, parameters: Iterable[str]) -> None:
    """Serve a model's newest good version.

    Args:
        changes: To its repository.
        model: Its name.
        parameters: What the request wants of the loading.

    Raises:
        InvalidParameter: It wants something, or the newest version does not serve.
        ModelNotFound: There is no such model.
        Forbidden: It was unloaded, and the repository cannot be written.
    """
    for name in parameters:
        raise InvalidParameter(f"a model is loaded as it lies in its folder; '{name}' is not taken")
    await changes.load(model)


def ready_model(repository: Repository, model: str, version: str | None) -> ServedModel:
    """A model that predicts now.

    Raises:
        ModelNotFound: There is no such one.
        NotReady: It is there, and does not.
    """
    served = repository.resolve(model, version)
    if not served.batcher.is_ready:
        raise NotReady(f"model '{served.name}' takes no requests now")
    return served
