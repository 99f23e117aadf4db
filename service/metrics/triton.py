"""The service's counts under the names that Triton Inference Server gives them, for dashboards made for it.

Each image is one request in Triton's words: a request of several images there would be several here.
Triton's durations are sums of microseconds:

    request = receive + decode + queue + inference + serialize
    queue, compute_input = decode, compute_infer = inference, compute_output = serialize

Source: Triton Inference Server documentation, "Metrics" (user_guide/metrics).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

from service.metrics.summing import Snapshot

_US: Final = 1e6
_DURATIONS: Final = {
    "nv_inference_queue_duration_us": "queue",
    "nv_inference_compute_input_duration_us": "decode",
    "nv_inference_compute_infer_duration_us": "inference",
    "nv_inference_compute_output_duration_us": "serialize",
}


def triton_names(of: Snapshot) -> Snapshot:
    """The families that Triton has as well, made of a snapshot's own."""
    predicted = [sample for sample in _samples(of, "foldserve_images_total") if _is_predicted(sample)]
    failed = [sample for sample in _samples(of, "foldserve_images_total") if not _is_predicted(sample)]
    batches = list(_samples(of, "foldserve_batches_total"))
    stages = list(_samples(of, "foldserve_stage_duration_seconds_sum"))
    families = {
        "nv_inference_request_success": _by_version(predicted),
        "nv_inference_request_failure": _by_version(failed),
        "nv_inference_count": _by_version(predicted),
        "nv_inference_exec_count": _by_version(batches),
        "nv_inference_request_duration_us": _by_version(stages, _US),
        **{
            name: _by_version([sample for sample in stages if sample[1]["stage"] == stage], _US)
            for name, stage in _DURATIONS.items()
        },
        "nv_inference_pending_request_count": _pending(of),
    }
    return {name: _family(name, values) for name, values in families.items()}


def _samples(of: Snapshot, name: str) -> Iterator[list[Any]]:
    for family in of.values():
        for sample in family["samples"]:
            if sample[0] == name:
                yield sample


def _is_predicted(sample: list[Any]) -> bool:
    return bool(sample[1]["outcome"] == "predicted")


def _by_version(samples: list[list[Any]], factor: float = 1.0) -> dict[tuple[str, str], float]:
    """(model, version) → sum of the samples."""
    sums: dict[tuple[str, str], float] = {}
    for _, labels, value in samples:
        key = (labels["model"], labels["version"])
        sums[key] = sums.get(key, 0.0) + factor * float(value)
    return sums


def _pending(of: Snapshot) -> dict[tuple[str, str], float]:
    """A model has one queue, that of the version it serves."""
    serving = {labels["model"]: labels["version"] for _, labels, _ in _samples(of, "foldserve_model_info")}
    return {
        (labels["model"], serving[labels["model"]]): value
        for _, labels, value in _samples(of, "foldserve_queue_depth")
    }


def _family(name: str, values: dict[tuple[str, str], float]) -> dict[str, Any]:
    # Of no type: the library would end a counter's name in `_total`, which Triton's do not.
    return {
        "documentation": "As of Triton Inference Server.",
        "type": "unknown",
        "samples": [
            [name, {"model": model, "version": version}, value] for (model, version), value in values.items()
        ],
        "exemplars": [],
    }
