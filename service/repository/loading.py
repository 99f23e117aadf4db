"""Loading: one version becomes an engine that may answer, or is refused with its reason.

::

    checksum ─▶ session ─▶ metadata ≡ graph ─▶ every batch bucket ─▶ self-test        ModelRejected

Whatever goes wrong is the version's fault, also what nobody thought of and what does not fit into memory: at
a reload the version that serves must go on.
"""

from __future__ import annotations

import logging
import time
from dataclasses import dataclass
from pathlib import Path

from service.batcher import CostModel
from service.engine import Engine, EngineOptions, SelfTestResult
from service.errors import FoldserveError, LoadFailed

logger = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class BuiltModel:
    """A version that was loaded, warmed and self-tested, and does not serve yet."""

    name: str
    version: str
    engine: Engine
    self_test: SelfTestResult
    cost: CostModel
    max_batch_size: int
    build_s: float


def build(name: str, version: str, path: Path, options: EngineOptions) -> BuiltModel:
    """Load, warm and self-test one version. Slow: not for the event loop's thread.

    Args:
        name: Of the model.
        version: Of it.
        path: Its file.
        options: How its session is built.

    Raises:
        ModelRejected: It must not serve.
        ProviderUnavailable: The execution provider that was demanded is not there.
    """
    started = time.perf_counter()
    try:
        engine = Engine.load(path, options)
        cost, max_batch_size = warm_up(engine)
        self_test = engine.self_test()
    except FoldserveError:
        raise
    except MemoryError as error:
        raise LoadFailed(f"{path}: not enough memory to load it") from error
    except Exception as error:
        logger.exception("%s: loading failed in a way nobody thought of", path)
        raise LoadFailed(f"{path}: loading failed: {error!r}") from error
    seconds = time.perf_counter() - started
    return BuiltModel(name, version, engine, self_test, cost, max_batch_size, seconds)


def warm_up(engine: Engine) -> tuple[CostModel, int]:
    """Run every batch bucket that will be used; what batches cost, and the largest that was warmed.

    On a CPU the buckets end at twice the size that is worth its members' time (`CostModel`): larger batches
    would never be formed, but warming them takes seconds, and their activations stay allocated. Where the
    engine has lanes, batches of fewer instances than lanes run wide, and what is learnt is what lanes cost.

    Raises:
        LoadFailed: The runtime failed.
    """
    cost, largest = CostModel(), 1
    lanes = engine.threads if engine.has_lanes else 1
    for size in engine.buckets:
        if lanes == 1:
            cost.learn(size, engine.warm(size))
        else:
            if size < lanes:
                engine.warm(size)
            cost.learn(size, engine.warm_lane(size) / lanes)
        largest = size
        enough = max(2 * cost.worthwhile_size(engine.buckets[-1], lanes), lanes)
        if engine.active == "cpu" and size >= enough:
            break
    return cost, largest
