"""``report.json``: every fact, as data."""

from __future__ import annotations

import json
import os
import platform
from dataclasses import asdict

from pydantic import TypeAdapter

from model_export.records import CostTable
from model_export.report.facts import Facts
from service.artifact import ModelMetadata

SCHEMA_VERSION = 1


def document_json(facts: Facts, metadata: ModelMetadata, digest: str) -> bytes:
    """The whole report as JSON.

    Args:
        facts: What the stages found.
        metadata: What the file says about itself; its self-test pictures are left out.
        digest: The model file's sha256.
    """
    document = {
        "schema_version": SCHEMA_VERSION,
        "model": metadata.model_dump(mode="json", exclude={"selftest": {"instances"}}),
        "sha256": digest,
        "config": plain(facts.config),
        "data": None if facts.data is None else asdict(facts.data),
        "training": [asdict(epoch) for epoch in facts.history.epochs],
        "cost": {"before": cost_totals(facts.cost), "after": cost_totals(facts.folded_cost)},
        "fold": None if facts.fold is None else asdict(facts.fold),
        "times": [asdict(each) for each in facts.times],
        "adoption": None if facts.adoption is None else plain(facts.adoption),
        "verification": asdict(facts.verification),
        "plan": None if facts.plan is None else plain(facts.plan),
        "calibration": None if facts.calibration is None else asdict(facts.calibration),
        "precisions": [asdict(outcome) for outcome in facts.precisions],
        "machine": machine(),
    }
    return json.dumps(document, indent=2).encode()


def plain(record: object) -> object:
    """A record as JSON values."""
    return TypeAdapter(type(record)).dump_python(record, mode="json")


def cost_totals(table: CostTable | None) -> dict[str, object] | None:
    """A cost table with its sums and the operators that have no cost rule."""
    if table is None:
        return None
    return {
        "parameters": table.parameters,
        "weight_bytes": table.weight_bytes,
        "activation_bytes": table.activation_bytes,
        "macs": table.macs,
        "peak_bytes": table.peak_bytes,
        "moved_bytes": table.moved_bytes,
        "batch_norm_share": table.batch_norm_share,
        "seconds": table.seconds,
        "batch_norm_time_share": table.batch_norm_time_share,
        "unknown": sorted({layer.operator for layer in table.layers if not layer.known}),
        "layers": [asdict(layer) for layer in table.layers],
        "times": [asdict(each) for each in table.times],
    }


def machine() -> dict[str, object]:
    """What the numbers were made on."""
    return {
        "system": platform.platform(),
        "processor": platform.machine(),
        "cpus": os.cpu_count(),
        "python": platform.python_version(),
    }
