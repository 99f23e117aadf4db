"""What of the settings is whose business. Only here are they seen whole."""

from __future__ import annotations

from service import __version__, access
from service.api.body import BodyLimits
from service.api.inference import Inference, RequestLimits
from service.api.predict import PredictEndpoint
from service.api.protocol.infer import InferEndpoint
from service.api.protocol.tensorflow import TensorFlowEndpoint
from service.app.lean import LeanRoute
from service.artifact import Precision
from service.engine import EngineOptions, Provider
from service.errors import InvalidConfiguration
from service.hardware import available_cpus
from service.images import DecodeLimits
from service.metrics import Metrics
from service.repository import RepositoryOptions
from service.settings import Settings
from service.tracing import Tracer


def make_access(settings: Settings, metrics: Metrics) -> access.Access | None:
    """The door that the settings ask for; None where everybody is let in.

    Raises:
        InvalidConfiguration: The file with the keys is not right.
    """
    if settings.api_keys_file is None and not settings.rate_limit_per_minute:
        return None
    keys = None if settings.api_keys_file is None else access.KeyFile(settings.api_keys_file)
    rate = settings.rate_limit_per_minute
    return access.Access(keys, access.RateLimiter(rate) if rate else None, metrics.key_used)


def make_tracer(settings: Settings, metrics: Metrics) -> Tracer | None:
    """Who traces requests; None where traces have nowhere to go.

    Raises:
        InvalidConfiguration: OpenTelemetry is not installed.
    """
    if settings.otlp_endpoint is None:
        return None
    try:
        from service.tracing.otlp import OtlpExporter  # 30 MB that nobody else should pay for
    except ImportError as error:
        raise InvalidConfiguration(
            f"otlp_endpoint is set, and {error.name} is not installed: pip install 'foldserve[tracing]'"
        ) from error
    exporter = OtlpExporter(settings.otlp_endpoint, __version__)
    return Tracer(exporter, settings.traces_per_s, metrics.trace_counter())


def cpu_share(workers: int | None) -> int:
    """The CPUs that are this worker's, one of so many; at least one. None: those of a lone one."""
    return max(1, available_cpus() // (workers or 1))


def repository_options(settings: Settings, *, is_watched: bool = False) -> RepositoryOptions:
    """What of the settings is the repository's business.

    Args:
        settings: Of this process.
        is_watched: Whether it is replaced when its event loop hangs.
    """
    return RepositoryOptions(
        root=settings.repository_folder,
        origin=settings.repository if isinstance(settings.repository, str) else None,
        models=settings.models,
        default_model=settings.default_model,
        precision=None if settings.precision == "auto" else Precision(settings.precision),
        engine=EngineOptions(
            provider=Provider(settings.execution_provider),
            threads=settings.threads,
            cpus=cpu_share(settings.workers),
            max_batch_size=settings.max_batch_size,
            cuda_graphs=settings.cuda_graphs,
            tensorrt_cache=settings.tensorrt_cache,
        ),
        max_queue_size=settings.max_queue_size,
        max_queue_delay_s=settings.max_queue_delay_ms / 1000,
        inference_timeout_s=settings.inference_timeout_s,
        is_watched=is_watched,
        reload_interval_s=settings.reload_interval_s,
    )


def request_limits(settings: Settings) -> RequestLimits:
    """What of the settings bounds a request."""
    return RequestLimits(
        body=BodyLimits(
            max_bytes=settings.max_body_bytes,
            timeout_s=settings.body_timeout_ms / 1000,
            max_held_bytes=settings.max_bytes_in_flight,
        ),
        max_images=settings.max_images_per_request,
        default_deadline_s=settings.default_deadline_ms / 1000,
        top_k=settings.top_k,
        decode=DecodeLimits(max_pixels=settings.max_pixels, formats=frozenset(settings.image_formats)),
        routing_header=settings.routing_header.lower().encode(),
    )


def lean_routes(inference: Inference, metrics: Metrics) -> tuple[LeanRoute, ...]:
    """The hot routes, each with what answers it."""
    infer, tensorflow = InferEndpoint(inference), TensorFlowEndpoint(inference)
    return (
        LeanRoute("/predict", PredictEndpoint(inference, metrics)),
        LeanRoute("/v2/models/{model}/infer", infer),
        LeanRoute("/v2/models/{model}/versions/{version}/infer", infer),
        LeanRoute("/v1/models/{model}:predict", tensorflow),
        LeanRoute("/v1/models/{model}/versions/{version}:predict", tensorflow),
    )
