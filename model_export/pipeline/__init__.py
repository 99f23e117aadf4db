"""The stages, composed. They never import each other: what one makes, the next finds as a file.

::

    train ─▶ cost ─▶ fold ─▶ export ─▶ verify ─▶ publish
      └───────┴───────┴── runs/<name>/ ──┴─────────┘└──▶ models/<name>/<version>/
"""

from model_export.pipeline.adoption import adopt
from model_export.pipeline.publication import publish
from model_export.pipeline.run import Run
from model_export.pipeline.workdir import WorkDir

__all__ = ["Run", "WorkDir", "adopt", "publish"]
