"""Request bodies: one, two or several pictures in each of the three forms that ``POST /predict`` takes.

::

    raw         the picture itself               1 picture
    multipart   one file part a picture          2 pictures
    json        {"images": ["<base64>", …]}      4 pictures

Bodies are made before the run, so that the generator spends its time on sending.
"""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal
from urllib.parse import quote

from loadtest.pictures import Picture

Form = Literal["raw", "multipart", "json"]
PICTURES_A_REQUEST: dict[Form, int] = {"raw": 1, "multipart": 2, "json": 4}
# How often each form comes up among ten requests: most clients send one picture.
MIX: dict[Form, int] = {"raw": 6, "multipart": 2, "json": 2}
DISTINCT = 512  # bodies a run; enough that no cache can answer for the service

_BOUNDARY = "foldserve-loadtest-5d1c0b7e"


@dataclass(frozen=True, slots=True)
class Body:
    """A request body, ready to be sent.

    Attributes:
        labels: What each picture is, in order; None where nobody knows.
        model: To ask for; empty: the service's own choice.
        size: Of its pictures, in words; empty where a run does not tell sizes apart.
    """

    form: Form
    content: bytes
    content_type: str
    labels: tuple[str | None, ...]
    model: str = ""
    size: str = ""

    @property
    def path(self) -> str:
        """Where it goes."""
        return f"/predict?model={quote(self.model)}" if self.model else "/predict"


def encode(form: Form, pictures: Sequence[Picture], model: str = "") -> Body:
    """The body that carries ``pictures``, all of one size, in this form; ``raw`` carries exactly one."""
    content, content_type = _ENCODERS[form](pictures)
    labels = tuple(picture.label for picture in pictures)
    return Body(form, content, content_type, labels, model, pictures[0].size)


def mixed(
    pictures: Sequence[Picture], count: int, seed: int, models: Sequence[str] = ("",)
) -> tuple[Body, ...]:
    """``count`` bodies in the proportions of `MIX`, the same ones for the same seed.

    Sizes and models come up equally often; the pictures of one body have one size.
    """
    rng = random.Random(seed)
    by_size: dict[str, list[Picture]] = {}
    for picture in pictures:
        by_size.setdefault(picture.size, []).append(picture)
    groups = tuple(by_size.values())
    forms = rng.choices(tuple(MIX), weights=tuple(MIX.values()), k=count)
    return tuple(
        encode(form, rng.choices(rng.choice(groups), k=PICTURES_A_REQUEST[form]), rng.choice(models))
        for form in forms
    )


def _raw(pictures: Sequence[Picture]) -> tuple[bytes, str]:
    (picture,) = pictures
    return picture.data, picture.media_type


def _multipart(pictures: Sequence[Picture]) -> tuple[bytes, str]:
    parts = [
        f'--{_BOUNDARY}\r\nContent-Disposition: form-data; name="image"; filename="{position}"\r\n'
        f"Content-Type: {picture.media_type}\r\n\r\n".encode()
        + picture.data
        + b"\r\n"
        for position, picture in enumerate(pictures)
    ]
    return b"".join(parts) + f"--{_BOUNDARY}--\r\n".encode(), f"multipart/form-data; boundary={_BOUNDARY}"


def _json(pictures: Sequence[Picture]) -> tuple[bytes, str]:
    images = [base64.b64encode(picture.data).decode() for picture in pictures]
    return json.dumps({"images": images}).encode(), "application/json"


_ENCODERS = {"raw": _raw, "multipart": _multipart, "json": _json}
