"""Every route of the OpenAPI document against a real process: whatever is sent, the answer is documented.

schemathesis makes the requests, good and bad, from ``docs/openapi.json``, and judges the answers by it: their
status, media type, headers and schema, and no 500. ``make contract`` makes more of them (CONTRACT_EXAMPLES).
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final, TypeAlias

import pytest
import requests
import schemathesis
from hypothesis import HealthCheck, settings

from service.access import Scope, make_key
from tests.model_files import write_model
from tests.service.test_process import TIMEOUT_S, command

pytestmark = pytest.mark.e2e

EXAMPLES: Final = int(os.environ.get("CONTRACT_EXAMPLES", "5"))
DOCUMENT: Final = Path(__file__).parents[2] / "docs" / "openapi.json"
NAMES: Final = ("tiny", "spare")
# Names that there are, now and then: nothing else leads beyond a 404.
KNOWN: Final = {"dictionary": "names", "probability": 0.5}
SPARE: Final = {"dictionary": "spare", "probability": 0.5}
FIRST: Final = {"dictionary": "versions", "probability": 0.5}
CONFIG: Final = {
    "dictionaries": {
        "names": {"values": [*NAMES]},
        "spare": {"values": ["spare"]},
        "versions": {"values": ["1"]},
    },
    # What only ever one of them undergoes: the other one stays, so that there is something to ask.
    "operations": [
        {"include-path-regex": "/(unload|serving)$", "parameters": {"path.model": SPARE, "path.name": SPARE}}
    ],
    "parameters": {"path.model": KNOWN, "path.name": KNOWN, "query.model": KNOWN, "path.version": FIRST},
    # A random body is no picture and no tensor: it is refused rightly, and no schema can say why.
    "checks": {
        "positive_data_acceptance": {"enabled": False},
        # A client may be less patient than any answer takes.
        "not_a_server_error": {"expected-statuses": ["2xx", "4xx", 503, 504]},
    },
}

Case: TypeAlias = schemathesis.Case[Any]

schema = schemathesis.openapi.from_dict(
    json.loads(DOCUMENT.read_bytes()), config=schemathesis.Config.from_dict(CONFIG)
)


class Visitor:
    """A session with a service, and a key for everything."""

    def __init__(self, url: str, secret: str) -> None:
        self.url = url
        self.session = requests.Session()
        self.session.headers["Authorization"] = f"Bearer {secret}"

    def is_ready(self) -> bool:
        try:
            return self.session.get(f"{self.url}/readyz", timeout=TIMEOUT_S).status_code == 200
        except requests.ConnectionError:
            return False


@pytest.fixture(scope="module")
def visitor(
    tmp_path_factory: pytest.TempPathFactory, unused_tcp_port_factory: Callable[[], int]
) -> Iterator[Visitor]:
    """Of a service with two models."""
    root = tmp_path_factory.mktemp("models")
    for name in NAMES:
        write_model(root, name=name)
    secret, line = make_key("tests", Scope)
    (root / "keys").write_text(line)
    port = str(unused_tcp_port_factory())
    flags = (
        "--port",
        port,
        "--repository",
        str(root),
        "--api-keys-file",
        str(root / "keys"),
        "--workers",
        "1",
    )
    with (root / "log").open("w") as log:
        process = subprocess.Popen(command(*flags), stderr=log)  # noqa: S603 - our own program
    visitor = Visitor(f"http://127.0.0.1:{port}", secret)
    deadline = time.monotonic() + TIMEOUT_S
    while not visitor.is_ready():
        assert time.monotonic() < deadline, (root / "log").read_text()
        time.sleep(0.02)
    yield visitor
    visitor.session.close()
    process.terminate()
    assert process.wait(TIMEOUT_S) == 0
    assert "Traceback" not in (root / "log").read_text()


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@schema.parametrize()
def test_every_answer_is_documented(case: Case, visitor: Visitor) -> None:
    case.call_and_validate(base_url=visitor.url, session=visitor.session, timeout=TIMEOUT_S)
