"""The process that answers requests: HTTP in front of ONNX Runtime, with dynamic batching."""

import os

# ONNX Runtime would write a device id into the home folder and report its use; it reads this on import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

__version__ = "0.1.0"
