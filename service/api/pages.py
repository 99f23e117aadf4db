"""``/`` and ``/docs``: the playground and the reference of the API, their files, and the model cards.

The files are read once, at start: what is served is a closed set, and no path of a request reaches the disk.
The pages load nothing from elsewhere and run no inline script, and their policy holds them to that: they work
in a network that leads nowhere.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.resources import files
from typing import Annotated, Final, Literal, Self

from fastapi import APIRouter, Header, Response
from pydantic import AwareDatetime, BaseModel, ConfigDict

from service.artifact import Accuracy, FoldSummary, InputContract, Parity, Precision, Producer, Task
from service.errors import ModelNotFound, RouteNotFound
from service.repository import Repository, ServedModel

_MEDIA_TYPES: Final = {
    "html": "text/html; charset=utf-8",
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
}
_POLICY: Final = "; ".join(
    (
        "default-src 'none'",
        "script-src 'self'",
        "style-src 'self'",
        "img-src 'self' blob:",  # previews of what was chosen
        "connect-src 'self'",
        "base-uri 'none'",
        "form-action 'none'",
        "frame-ancestors 'none'",
    )
)
_SECURITY_HEADERS: Final[Mapping[str, str]] = {
    "content-security-policy": _POLICY,
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
    "cache-control": "no-cache",  # keep it, but ask by its tag
}


class ModelCard(BaseModel):
    """What a model that serves says of itself."""

    # protected_namespaces: `model` is this field's everyday word here.
    model_config = ConfigDict(extra="forbid", protected_namespaces=())

    name: str
    version: str
    is_default: bool
    provider: Literal["cpu", "cuda", "tensorrt"]
    task: Task
    labels: tuple[str, ...]
    input: InputContract
    precision: Precision
    architecture: str
    fold: FoldSummary | None
    accuracy: tuple[Accuracy, ...]
    parity: tuple[Parity, ...]
    created_at: AwareDatetime
    producer: Producer

    @classmethod
    def of(cls, served: ServedModel, *, is_default: bool) -> Self:
        """The card of one served version. Name and version are the folder's: it is the identity."""
        metadata = served.metadata
        return cls(
            name=served.name,
            version=served.version,
            is_default=is_default,
            provider=served.engine.active,
            task=metadata.task,
            labels=metadata.labels,
            input=metadata.input,
            precision=metadata.precision,
            architecture=metadata.architecture,
            fold=metadata.fold,
            accuracy=metadata.accuracy,
            parity=metadata.parity,
            created_at=metadata.created_at,
            producer=metadata.producer,
        )


@dataclass(frozen=True, slots=True)
class _File:
    """One file of the pages, as it is sent."""

    body: bytes
    media_type: str
    tag: str

    def response(self, if_none_match: str) -> Response:
        headers = {**_SECURITY_HEADERS, "content-type": self.media_type, "etag": self.tag}
        if self.tag in (tag.strip() for tag in if_none_match.split(",")):
            return Response(status_code=304, headers=headers)
        return Response(self.body, headers=headers)


def pages_router(repository: Repository) -> APIRouter:
    """The pages, their files and the model cards."""
    router = APIRouter(tags=["models"])
    page = _page_files()

    @router.get("/models")
    async def models() -> list[ModelCard]:
        """The card of every model that serves, the default one first."""
        return model_cards(repository)

    @router.get("/", include_in_schema=False)
    async def index(if_none_match: Annotated[str, Header()] = "") -> Response:
        return page["index.html"].response(if_none_match)

    @router.get("/docs", include_in_schema=False)
    async def reference(if_none_match: Annotated[str, Header()] = "") -> Response:
        return page["reference.html"].response(if_none_match)

    @router.get("/static/{name}", include_in_schema=False)
    async def static(name: str, if_none_match: Annotated[str, Header()] = "") -> Response:
        if name not in page:
            raise RouteNotFound(f"there is nothing at /static/{name}")
        return page[name].response(if_none_match)

    return router


def model_cards(repository: Repository) -> list[ModelCard]:
    """The card of every model that serves, the default one first, then by name."""
    try:
        default = repository.resolve().name if repository.served else None
    except ModelNotFound:  # several models, and none of them is the default
        default = None
    cards = [ModelCard.of(served, is_default=served.name == default) for served in repository.served]
    return sorted(cards, key=lambda card: (not card.is_default, card.name))


def _page_files() -> dict[str, _File]:
    """Name → file. The folder is part of the package."""
    found = {}
    for entry in files("service").joinpath("static").iterdir():
        suffix = entry.name.rpartition(".")[2]
        if suffix in _MEDIA_TYPES:
            body = entry.read_bytes()
            tag = f'"{hashlib.sha256(body).hexdigest()[:32]}"'
            found[entry.name] = _File(body, _MEDIA_TYPES[suffix], tag)
    return found
