"""Triton's names say what our own families say."""

from __future__ import annotations

import numpy as np

from service.batcher import FinishedBatch
from service.errors import Reason
from service.metrics import Metrics, render_snapshot, snapshot, triton_names
from tests.service.exposition import registry_of


def test_every_name_has_its_value_by_model_and_version() -> None:
    metrics = Metrics(version="1")
    model = metrics.for_model("digits", "3", ("a", "b"))
    rows = np.full((2, 2), 0.5, np.float32)
    model.batch_finished(FinishedBatch(rows, rows, inference_s=0.004, queue_s=[0.001, 0.002], started=0.0))
    model.image_rejected(Reason.UNDECODABLE_IMAGE)
    model.note["decode"](0.5)
    names = triton_names(snapshot(metrics))
    registry = registry_of(names)

    def value(name: str) -> float | None:
        return registry.get_sample_value(name, {"model": "digits", "version": "3"})

    assert value("nv_inference_request_success") == value("nv_inference_count") == 2
    assert value("nv_inference_request_failure") == 1
    assert value("nv_inference_exec_count") == 1
    assert value("nv_inference_queue_duration_us") == 3000
    assert value("nv_inference_compute_infer_duration_us") == 8000
    assert value("nv_inference_compute_input_duration_us") == 500_000
    assert value("nv_inference_request_duration_us") == 511_000
    text, _ = render_snapshot(names)
    assert b'nv_inference_count{model="digits",version="3"} 2.0' in text
