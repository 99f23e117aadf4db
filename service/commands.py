"""Commands beside serving: the reference documents, written by the code that they describe."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Final

import orjson

from service.app import Application
from service.settings import Settings, settings_reference


def openapi_document() -> str:
    """``docs/openapi.json``: the whole HTTP interface."""
    document = Application(Settings.model_construct()).framework.openapi()
    return orjson.dumps(document, option=orjson.OPT_INDENT_2).decode() + "\n"


COMMANDS: Final[Mapping[str, Callable[[], str]]] = MappingProxyType(
    {"openapi": openapi_document, "settings": settings_reference}
)
