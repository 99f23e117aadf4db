"""The engine: one model file's ONNX Runtime sessions, checked before they may answer.

::

    Engine.load    checksum ─▶ session on the provider asked for ─▶ metadata ≡ graph       ModelRejected,
    warm           one batch bucket, of all cores or of a lane                             ProviderUnavailable
    self_test      the file's own images through the decode path, against its logits
    run            uint8 [N, H, W, C] ─▶ logits, probabilities float32 [N, K]              InferenceFailed,
    run_in_lane    the same on one core, for several threads at once                       EngineLost

The one place that touches onnxruntime: its exceptions do not leave it.
"""

from service.engine.contract import digest_of, verified_digest
from service.engine.engine import Engine, SelfTestResult
from service.engine.providers import Kind, Provider, missing_part
from service.engine.sessions import EngineOptions

__all__ = [
    "Engine",
    "EngineOptions",
    "Kind",
    "Provider",
    "SelfTestResult",
    "digest_of",
    "missing_part",
    "verified_digest",
]
