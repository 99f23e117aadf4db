"""``POST /v1/models/{model}:predict``: the row form of TensorFlow Serving's REST API.

::

    {"instances": [{"b64": "…"}, …]}            encoded images
    {"instances": [{"images": {"b64": "…"}}]}   the same, with the input named
    {"instances": [[[[0], [17], …], …], …]}     pixels, uint8 [N, H, W, C] as nested lists
        ──▶ {"predictions": [[0.01, 0.98, …], …]}     the probabilities, float32 [N, K]

As with every model of one output, a prediction is its values without a name. An error is the whole request's.

Source: TensorFlow Serving, "RESTful API", sections "Predict API" and "Encoding binary values".
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Final

import orjson

from service.api.exchange import Exchange
from service.api.inference import Inference, Instance, client_timeout_s, observe_stage, refuse_content_coding
from service.api.payload import decoded_text, parsed_json
from service.api.protocol.infer import note_timings, rows_of
from service.api.protocol.tensors import flattened, pixels_of
from service.artifact import INPUT_NAME, InputContract
from service.errors import InvalidTensor, MalformedBody, RequestError, TooManyImages

_JSON: Final = ((b"content-type", b"application/json"),)
_SIGNATURE: Final = "serving_default"


class TensorFlowEndpoint:
    """The route's work.

    Args:
        inference: The road to the models.
    """

    def __init__(self, inference: Inference) -> None:
        self._inference = inference

    async def __call__(self, exchange: Exchange) -> None:
        """Answer one request.

        Raises:
            RequestError: The request, or one of its instances, failed.
            ClientLeft: Nobody waits for the answer any more.
        """
        path, inference = exchange.path_parameters, self._inference
        timeout_s = client_timeout_s(exchange)
        inference.find(exchange, path["model"], path.get("version"))  # refuse before the body is read
        refuse_content_coding(exchange)
        try:
            body = await inference.bodies.read(exchange)
            received_s = time.monotonic() - exchange.started
            given = parse_instances(body, inference.limits.max_images)
            model = inference.find(exchange, path["model"], path.get("version"))
            observe_stage(exchange, model, "receive", exchange.started, received_s)
            contract = model.metadata.input
            with model.batcher.admit(len(given), inference.deadline(exchange.started, timeout_s)) as permit:
                instances = [_instance(value, contract, position) for position, value in enumerate(given)]
                rows = rows_of(await inference.outcomes(exchange, model, permit, instances))
        finally:
            inference.bodies.release(exchange)
        note_timings(exchange, rows)
        started = time.monotonic()
        predictions = [row.probabilities for row in rows]
        answer = orjson.dumps({"predictions": predictions}, option=orjson.OPT_SERIALIZE_NUMPY)
        observe_stage(exchange, model, "serialize", started, time.monotonic() - started)
        await exchange.respond(200, _JSON, answer)


def parse_instances(body: bytes, max_images: int) -> Sequence[object]:
    """The instances in a body, as they are; at least one.

    Raises:
        MalformedBody: It is not of the row form.
        InvalidTensor: A signature that there is not.
        TooManyImages: More than ``max_images``.
    """
    document = parsed_json(body, 16 + 2 * max_images)  # an instance has two at most
    if not isinstance(document, dict) or "instances" not in document:
        raise MalformedBody('the body must be an object with "instances"; the columnar form is not offered')
    signature = document.get("signature_name", _SIGNATURE)
    if signature not in (_SIGNATURE, ""):
        raise InvalidTensor(f"the model has one signature, '{_SIGNATURE}', not {signature!r}")
    instances = document["instances"]
    if not isinstance(instances, list) or not instances:
        raise MalformedBody('"instances" must be a list of at least one instance')
    if len(instances) > max_images:
        raise TooManyImages(f"{len(instances)} instances in one request; at most {max_images} are taken")
    return instances


def _instance(value: object, contract: InputContract, position: int) -> Instance:
    """One instance, without the name of its input."""
    if isinstance(value, dict) and value.keys() == {INPUT_NAME}:
        value = value[INPUT_NAME]
    if isinstance(value, dict) and isinstance(text := value.get("b64"), str):
        image = decoded_text(text)
        if isinstance(image, RequestError):
            raise InvalidTensor(f"instance {position}: {image.detail}")
        return image
    shape = (contract.height, contract.width, contract.channels)
    if isinstance(value, list):
        return pixels_of(flattened(value, shape), shape)
    raise InvalidTensor(
        f'instance {position} must be {{"b64": "<an encoded image>"}}, or nested lists of shape {list(shape)}'
    )
