"""The Open Inference Protocol over gRPC: right answers, a stated status for every refusal, a clean end."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeAlias, cast

import grpc
import grpc.aio
import numpy as np
import pytest
from google.protobuf.message import Message
from grpc import StatusCode
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_tools import protoc
from numpy.typing import NDArray

from service import __version__
from service.access import Scope, make_key
from service.api.rpc import open_inference_pb2 as pb
from service.api.rpc.server import RpcServer
from service.api.rpc.statuses import GRPC_STATUSES
from service.errors import InferenceFailed, InvalidConfiguration, Reason
from service.server.rpc import hold_port
from service.settings import Settings
from tests.model_files import png, write_model
from tests.service.api.collector import collecting
from tests.service.api.conftest import LABELS, TINY, Running, Start
from tests.service.api.protocol.wire import bytes_raw
from tests.service.api.test_predict import softmax
from tests.service.fakes import until

TIMEOUT_S = 10.0
ROOT = Path(__file__).parents[4]
ROUTE = "/inference.GRPCInferenceService/"
ONE = TINY.image(1)[np.newaxis]
EIGHT = np.stack([TINY.image(seed) for seed in range(8)])


@dataclass(frozen=True)
class Called:
    """An application with a gRPC port, and a channel to it."""

    running: Running
    server: RpcServer
    channel: grpc.aio.Channel

    def call(self, method: str, request: Message, **options: Any) -> grpc.aio.UnaryUnaryCall[Any, Any]:
        """Call a method of the service."""
        reply = getattr(pb, type(request).__name__.removesuffix("Request") + "Response")
        make: Any = self.channel.unary_unary(
            ROUTE + method,
            request_serializer=type(request).SerializeToString,
            response_deserializer=reply.FromString,
        )
        options = {"timeout": TIMEOUT_S, **options}
        return cast("grpc.aio.UnaryUnaryCall[Any, Any]", make(request, **options))

    async def infer(self, request: pb.ModelInferRequest, **options: Any) -> pb.ModelInferResponse:
        """Call ModelInfer."""
        return cast("pb.ModelInferResponse", await self.call("ModelInfer", request, **options))

    async def refusal(self, request: pb.ModelInferRequest, **options: Any) -> grpc.aio.AioRpcError:
        """The error that ModelInfer ends with; its reason is in the trailing metadata."""
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await self.infer(request, **options)
        error: grpc.aio.AioRpcError = caught.value
        assert error.code() is GRPC_STATUSES[reason_of(error)]
        return error


Call: TypeAlias = Callable[..., AbstractAsyncContextManager[Called]]


def reason_of(error: grpc.aio.AioRpcError) -> Reason:
    """What the trailing metadata says."""
    return Reason(str(dict(error.trailing_metadata())["reason"]))


@pytest.fixture
def called(start: Start) -> Call:
    """Starts an application with these settings, and its gRPC port."""

    @asynccontextmanager
    async def started(**settings: Any) -> AsyncIterator[Called]:
        async with start(**settings) as running:
            server = RpcServer(running.application, max_message_bytes=1 << 20, max_metadata_bytes=8192)
            port = await server.start("127.0.0.1", 0)
            try:
                async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
                    yield Called(running, server, channel)
            finally:
                await server.stop(0)

    return started


def request_of(pixels: NDArray[Any] = ONE, *, is_raw: bool = True, **changes: Any) -> pb.ModelInferRequest:
    """A request with these pixels."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="images", datatype="UINT8", shape=pixels.shape)
    raw = [pixels.tobytes()] if is_raw else []
    if not is_raw:
        tensor.contents.uint_contents.extend(pixels.reshape(-1).tolist())
    fields = {"model_name": "tiny", "inputs": [tensor], "raw_input_contents": raw, **changes}
    return pb.ModelInferRequest(**fields)


def images_of(images: Sequence[bytes], *, is_raw: bool) -> pb.ModelInferRequest:
    """A request with these encoded images."""
    tensor = pb.ModelInferRequest.InferInputTensor(name="images", datatype="BYTES", shape=[len(images)])
    if not is_raw:
        tensor.contents.bytes_contents.extend(images)
    raw = [bytes_raw(images)] if is_raw else []
    return pb.ModelInferRequest(model_name="tiny", inputs=[tensor], raw_input_contents=raw)


def tensor_of(answer: pb.ModelInferResponse, name: str) -> NDArray[np.float32]:
    """An output of the answer."""
    index = [output.name for output in answer.outputs].index(name)
    assert answer.outputs[index].datatype == "FP32"
    return np.frombuffer(answer.raw_output_contents[index], "<f4").reshape(answer.outputs[index].shape)


# Right answers.


@pytest.mark.parametrize("n", [1, 8])
@pytest.mark.parametrize("form", ["raw", "contents", "raw images", "images"])
async def test_every_form_gives_the_engines_own_answer(called: Call, form: str, n: int) -> None:
    pixels, is_raw = EIGHT[:n], form.startswith("raw")
    images = images_of(list(map(png, pixels)), is_raw=is_raw)
    async with called() as service:
        answer = await service.infer(images if "images" in form else request_of(pixels, is_raw=is_raw))
    assert [output.name for output in answer.outputs] == ["logits", "probabilities"]
    np.testing.assert_allclose(tensor_of(answer, "logits"), TINY.logits(pixels), rtol=1e-5)
    wanted = [softmax(row) for row in TINY.logits(pixels)]
    np.testing.assert_allclose(tensor_of(answer, "probabilities"), wanted, rtol=1e-5)


async def test_a_routing_key_keeps_a_client_on_its_side(called: Call, tmp_path: Path) -> None:
    """The same side as over HTTP, whatever the call's id is."""
    for version in ("1", "2"):
        write_model(tmp_path, version=version)
    (tmp_path / "tiny/serving.json").write_text('{"canary": {"version": "2", "weight": 0.5}}')
    async with called(repository=tmp_path) as service:

        async def over_grpc(key: str) -> str:
            answer = await service.infer(request_of(), metadata=(("x-routing-key", key),))
            return str(answer.model_version)

        async def over_http(key: str) -> str:
            headers = {"X-Routing-Key": key}
            answer = await service.running.client.post("/predict", content=png(ONE[0]), headers=headers)
            return str(answer.json()["version"])

        keys = [f"client-{n}" for n in range(16)]
        sides = [await over_grpc(key) for key in keys]
        assert set(sides) == {"1", "2"}
        assert sides == [await over_grpc(key) for key in keys]
        assert sides == [await over_http(key) for key in keys]
        named = await service.infer(request_of(model_version="1"), metadata=(("x-routing-key", keys[0]),))
        assert named.model_version == "1"


async def test_outputs_classes_and_ids_are_as_asked_for(called: Call) -> None:
    wanted = pb.ModelInferRequest.InferRequestedOutputTensor(name="logits")
    wanted.parameters["classification"].int64_param = 1
    async with called() as service:
        answer = await service.infer(request_of(id="order-7", outputs=[wanted], model_version="1"))
        unnamed = await service.infer(request_of(), metadata=(("x-request-id", "mine"),))
    assert (answer.id, answer.model_name, answer.model_version) == ("order-7", "tiny", "1")
    (output,), (raw,) = answer.outputs, answer.raw_output_contents
    assert (output.datatype, list(output.shape)) == ("BYTES", [1, 1])
    assert int.from_bytes(raw[:4], "little") == len(raw) - 4
    best = int(TINY.logits(ONE)[0].argmax())
    assert raw[4:].decode().split(":")[1:] == [str(best), LABELS[best]]
    assert unnamed.id == "mine"


async def test_instances_run_together_and_calls_are_counted(called: Call) -> None:
    async with called() as service:
        await service.infer(request_of(EIGHT))
        await service.refusal(request_of(model_name="none"))
        running = service.running
        assert running.gate.batch_sizes[-1] == 8
        labels = {"route": f"{ROUTE}ModelInfer", "method": "GRPC"}
        assert running.metric("foldserve_requests_total", code="200", **labels) == 1
        assert running.metric("foldserve_requests_total", code="404", **labels) == 1
        assert running.metric("foldserve_rejected_total", reason="model_not_found") == 1
        assert running.metric("foldserve_inflight_requests") == 0


async def test_a_call_is_traced_with_its_stages(called: Call) -> None:
    trace_id, parent_id = "4bf92f3577b34da6a3ce929d0e0e4736", "00f067aa0ba902b7"
    with collecting() as collector:
        async with called(otlp_endpoint=collector.endpoint) as service:
            await service.infer(request_of(), metadata=(("traceparent", f"00-{trace_id}-{parent_id}-01"),))
    (root,) = collector.named("inference.GRPCInferenceService/ModelInfer")
    assert (root.trace_id.hex(), root.parent_span_id.hex()) == (trace_id, parent_id)
    assert {"rpc.system", "rpc.service", "rpc.method"} < {item.key for item in root.attributes}
    children = [span for span in collector.spans if span.parent_span_id == root.span_id]
    assert sorted(span.name for span in children) == ["decode", "inference", "queue", "serialize"]
    assert all(root.start_time_unix_nano - 1000 <= span.start_time_unix_nano for span in children)


async def test_metadata_and_health_say_what_the_routes_say(called: Call) -> None:
    async with called() as service:
        assert (await service.call("ServerLive", pb.ServerLiveRequest())).live
        assert (await service.call("ServerReady", pb.ServerReadyRequest())).ready
        server = await service.call("ServerMetadata", pb.ServerMetadataRequest())
        assert (server.name, server.version) == ("foldserve", __version__)
        model = await service.call("ModelMetadata", pb.ModelMetadataRequest(name="tags"))
        assert [(tensor.name, tensor.datatype, list(tensor.shape)) for tensor in model.inputs] == [
            ("images", "UINT8", [-1, 8, 8, 1])
        ]
        for request, is_ready in (
            (pb.ModelReadyRequest(name="tiny"), True),
            (pb.ModelReadyRequest(name="tiny", version="1"), True),
            (pb.ModelReadyRequest(name="tiny", version="2"), False),
            (pb.ModelReadyRequest(name="none"), False),
        ):
            assert (await service.call("ModelReady", request)).ready is is_ready
        service.running.application.drain()
        assert not (await service.call("ServerReady", pb.ServerReadyRequest())).ready


async def test_the_health_service_follows_readiness(called: Call) -> None:
    async with called() as service:
        stub: Any = health_pb2_grpc.HealthStub(service.channel)
        states = health_pb2.HealthCheckResponse
        requests = [
            health_pb2.HealthCheckRequest(service=name) for name in ("", "inference.GRPCInferenceService")
        ]
        for request in requests:
            assert (await stub.Check(request, timeout=TIMEOUT_S)).status == states.SERVING
        watched = stub.Watch(requests[0], timeout=TIMEOUT_S)
        assert (await watched.read()).status == states.SERVING
        service.running.application.drain()
        await service.server.say_health()
        assert (await watched.read()).status == states.NOT_SERVING
        watched.cancel()
        for request in requests:
            assert (await stub.Check(request, timeout=TIMEOUT_S)).status == states.NOT_SERVING


async def test_reflection_lists_the_services(called: Call) -> None:
    async with called() as service:
        stub: Any = reflection_pb2_grpc.ServerReflectionStub(service.channel)  # type: ignore[arg-type]  # its stubs know no asyncio
        asked = reflection_pb2.ServerReflectionRequest(list_services="")
        async with asyncio.timeout(TIMEOUT_S):
            (answer,) = [each async for each in stub.ServerReflectionInfo(iter([asked]))]
    assert {"inference.GRPCInferenceService", "grpc.health.v1.Health"} <= {
        each.name for each in answer.list_services_response.service
    }


# Refusals.


def parameter(**value: Any) -> pb.InferParameter:
    return pb.InferParameter(**value)


def with_input(**changes: Any) -> pb.ModelInferRequest:
    fields = {"name": "images", "datatype": "UINT8", "shape": [1, 8, 8, 1], **changes}
    return request_of(inputs=[pb.ModelInferRequest.InferInputTensor(**fields)])


def with_output(name: str, **parameters: pb.InferParameter) -> pb.ModelInferRequest:
    return request_of(
        outputs=[pb.ModelInferRequest.InferRequestedOutputTensor(name=name, parameters=parameters)]
    )


SHARED = parameter(string_param="x")
REFUSED: dict[str, tuple[pb.ModelInferRequest, Reason, str]] = {
    "name": (with_input(name="image"), Reason.INVALID_INSTANCE, "the request has 'image'"),
    "datatype": (with_input(datatype="FP32"), Reason.INVALID_INSTANCE, "got FP32 [1, 8, 8, 1]"),
    "shape": (with_input(shape=[1, 8, 8, 3]), Reason.INVALID_INSTANCE, "got UINT8 [1, 8, 8, 3]"),
    "too few": (with_input(shape=[2, 8, 8, 1]), Reason.INVALID_INSTANCE, "is 128 elements; got 64"),
    "no contents": (request_of(raw_input_contents=[]), Reason.INVALID_INSTANCE, "is 64 elements; got 0"),
    "over 255": (
        request_of(ONE.astype(np.uint16) + 999, is_raw=False),
        Reason.INVALID_INSTANCE,
        "from 0 to 255",
    ),
    "no input": (request_of(inputs=[]), Reason.MALFORMED_BODY, "0 inputs, but 1 raw_input_contents"),
    "shared": (
        with_input(parameters={"shared_memory_region": SHARED}),
        Reason.INVALID_INSTANCE,
        "input 'images': shared memory",
    ),
    "output": (with_output("scores"), Reason.INVALID_INSTANCE, "no output 'scores'"),
    "shared output": (
        with_output("logits", shared_memory_region=SHARED),
        Reason.INVALID_INSTANCE,
        "output 'logits': shared memory",
    ),
    "classes": (
        with_output("logits", classification=parameter(string_param="two")),
        Reason.INVALID_INSTANCE,
        "whole number from 1 on, not 'two'",
    ),
    "timeout": (
        request_of(parameters={"timeout": parameter(double_param=0.5)}),
        Reason.INVALID_INSTANCE,
        "whole microseconds",
    ),
    "model": (request_of(model_name="none"), Reason.MODEL_NOT_FOUND, "no model 'none'"),
    "version": (request_of(model_version="9"), Reason.MODEL_NOT_FOUND, "'9'"),
    "image": (images_of([png(TINY.image(1)), b"x"], is_raw=False), Reason.UNDECODABLE_IMAGE, "image 1: "),
}


@pytest.mark.parametrize("case", REFUSED)
async def test_what_is_wrong_has_a_status_and_a_reason(called: Call, case: str) -> None:
    request, reason, message = REFUSED[case]
    async with called() as service:
        error = await service.refusal(request)
        assert service.running.application.repository.resolve("tiny").batcher.in_use == 0
    assert reason_of(error) is reason
    assert message in str(error.details())


def test_every_reason_has_a_status() -> None:
    assert set(GRPC_STATUSES) == set(Reason)
    assert StatusCode.OK not in GRPC_STATUSES.values()


async def test_too_large_a_message_is_refused_by_the_library(called: Call) -> None:
    async with called() as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.infer(request_of(raw_input_contents=[b"x" * (2 << 20)]))
    assert caught.value.code() is StatusCode.RESOURCE_EXHAUSTED


async def test_a_failed_batch_and_an_unexpected_failure_tell_nothing_of_their_cause(
    called: Call, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with called() as service:
        service.running.gate.error = InferenceFailed("a secret")
        assert "secret" not in str((await service.refusal(request_of())).details())

        def broken(*_: object) -> None:
            raise ZeroDivisionError("a secret")

        monkeypatch.setattr(service.running.application.inference, "resolve", broken)
        error = await service.refusal(request_of())
        assert reason_of(error) is Reason.INFERENCE_FAILED
        assert "secret" not in str(error.details())


async def test_what_does_not_fit_is_pushed_back(called: Call) -> None:
    async with called(max_queue_size=4, max_images_per_request=4) as service:
        service.running.gate.shut()
        first = asyncio.ensure_future(service.infer(request_of(EIGHT[:3])))
        await service.running.gate.occupied()
        error = await service.refusal(request_of(EIGHT[:2]))
        assert reason_of(error) is Reason.OVERLOADED
        trailing = dict(error.trailing_metadata())
        assert int(trailing["grpc-retry-pushback-ms"]) == 1000 * int(trailing["retry-after"]) >= 1000
        service.running.gate.open()
        await first


@pytest.mark.parametrize("said", ["deadline", "metadata", "parameter"])
async def test_every_way_to_say_a_deadline_is_one(called: Call, said: str) -> None:
    request = request_of()
    if said == "parameter":
        request.parameters["timeout"].int64_param = 30_000
    options: dict[str, dict[str, Any]] = {
        "deadline": {"timeout": 0.03},
        "metadata": {"metadata": (("x-request-timeout-ms", "30"),)},
    }
    async with called() as service:
        batcher = service.running.application.repository.resolve("tiny").batcher
        service.running.gate.shut()
        first = asyncio.ensure_future(service.infer(request_of()))
        await service.running.gate.occupied()
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.infer(request, **options.get(said, {}))
        assert caught.value.code() in (StatusCode.DEADLINE_EXCEEDED, StatusCode.UNAVAILABLE)
        await until(lambda: batcher.in_use == 1)
        service.running.gate.open()
        await first


async def test_a_client_that_leaves_gives_its_places_back(called: Call) -> None:
    async with called() as service:
        batcher = service.running.application.repository.resolve("tiny").batcher
        service.running.gate.shut()
        first = asyncio.ensure_future(service.infer(request_of()))
        await service.running.gate.occupied()
        waiting = service.call("ModelInfer", request_of(EIGHT))
        sent = asyncio.ensure_future(waiting.code())
        await until(lambda: batcher.in_use == 9)
        waiting.cancel()
        assert await sent is StatusCode.CANCELLED
        await until(lambda: batcher.in_use == 1)
        service.running.gate.open()
        await first
        assert service.running.metric("foldserve_cancelled_total", stage="queue") == 8


async def test_with_a_key_file_inference_needs_a_key(called: Call, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    secret, line = make_key("web", [Scope.PREDICT])
    path.write_text(line)
    async with called(api_keys_file=path) as service:
        assert reason_of(await service.refusal(request_of())) is Reason.UNAUTHENTICATED
        for metadata in (("authorization", f"Bearer {secret}"), ("x-api-key", secret)):
            assert await service.infer(request_of(), metadata=(metadata,))
        assert (await service.call("ServerReady", pb.ServerReadyRequest())).ready


async def test_the_repository_is_listed_and_changed_with_an_admins_key(called: Call, tmp_path: Path) -> None:
    path = tmp_path / "keys"
    secret, line = make_key("ops", [Scope.ADMIN])
    path.write_text(line)
    write_model(tmp_path / "models", model=TINY)
    write_model(tmp_path / "models", model=TINY, name="other")
    key = {"metadata": (("x-api-key", secret),)}
    async with called(api_keys_file=path, repository=tmp_path / "models") as service:
        unload = pb.RepositoryModelUnloadRequest(model_name="other")
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.call("RepositoryModelUnload", unload)
        assert reason_of(caught.value) is Reason.UNAUTHENTICATED
        await service.call("RepositoryModelUnload", unload, **key)
        assert not (await service.call("ModelReady", pb.ModelReadyRequest(name="other"))).ready
        load = pb.RepositoryModelLoadRequest(model_name="other")
        await service.call("RepositoryModelLoad", load, **key)
        index = await service.call("RepositoryIndex", pb.RepositoryIndexRequest(ready=True))
        assert [(each.name, each.version, each.state) for each in index.models] == [
            ("other", "1", "READY"),
            ("tiny", "1", "READY"),
        ]
        load.parameters["config"].string_param = "{}"
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.call("RepositoryModelLoad", load, **key)
        assert reason_of(caught.value) is Reason.INVALID_PARAMETER


async def test_without_keys_nobody_changes_anything(called: Call) -> None:
    async with called() as service:
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.call("RepositoryModelLoad", pb.RepositoryModelLoadRequest(model_name="tiny"))
    assert reason_of(caught.value) is Reason.FORBIDDEN


async def test_without_keys_rates_are_by_address(called: Call) -> None:
    async with called(rate_limit_per_minute=1) as service:
        await service.infer(request_of())
        assert reason_of(await service.refusal(request_of())) is Reason.RATE_LIMITED


def test_the_committed_code_is_the_compiled_definition(tmp_path: Path) -> None:
    source = "service/api/rpc/open_inference.proto"
    options = [f"-I{ROOT}", f"--python_out={tmp_path}", f"--pyi_out={tmp_path}"]
    assert protoc.main(["protoc", *options, str(ROOT / source)]) == 0
    for name in ("open_inference_pb2.py", "open_inference_pb2.pyi"):
        compiled = tmp_path / "service" / "api" / "rpc" / name
        committed = ROOT / "service" / "api" / "rpc" / name
        assert committed.read_text() == compiled.read_text(), "compile it again: make grpc"


# The port.


async def test_stopping_finishes_what_runs_and_takes_nothing_new(called: Call) -> None:
    async with called() as service:
        service.running.gate.shut()
        first = asyncio.ensure_future(service.infer(request_of()))
        await service.running.gate.occupied()
        # Who watches would watch for ever; the end does not wait for it.
        watched: Any = health_pb2_grpc.HealthStub(service.channel)
        stream = watched.Watch(health_pb2.HealthCheckRequest())
        await stream.read()
        stopping = asyncio.ensure_future(service.server.stop(2 * TIMEOUT_S))
        await asyncio.sleep(0)
        assert not stopping.done()
        service.running.gate.open()
        assert tensor_of(await first, "logits").shape == (1, 3)
        async with asyncio.timeout(TIMEOUT_S):
            await stopping
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await service.infer(request_of(), timeout=1)
        assert caught.value.code() is StatusCode.UNAVAILABLE


def test_without_the_library_the_setting_names_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "grpc_health.v1.health", None)
    with pytest.raises(
        InvalidConfiguration, match=r"grpc_port is set, but .* pip install 'foldserve\[grpc\]'"
    ):
        hold_port(Settings(grpc_port=0))


def test_a_taken_port_is_named() -> None:
    _, held = hold_port(Settings(grpc_port=0))
    with held:
        port = held.getsockname()[1]  # type: ignore[attr-defined]  # a socket, as long as gRPC is wanted
        held.listen()  # type: ignore[attr-defined]  # as a worker does
        with pytest.raises(InvalidConfiguration, match=f"port {port}: Address already in use"):
            hold_port(Settings(grpc_port=port))


def test_without_the_setting_there_is_nothing_to_hold() -> None:
    settings, held = hold_port(Settings())
    assert settings.grpc_port is None
    with held:
        pass
