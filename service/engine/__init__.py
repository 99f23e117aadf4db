"""The engine: one ONNX Runtime session for one model file, checked before it may answer.

::

    Engine.load    checksum ─▶ session on the provider asked for ─▶ metadata ≡ graph       ModelRejected,
    warm           one batch bucket                                                        ProviderUnavailable
    self_test      the file's own images through the decode path, against its logits
    run            uint8 [N, H, W, C] ─▶ logits, probabilities float32 [N, K]              InferenceFailed,
                                                                                           EngineLost

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
