"""The process that answers requests: HTTP in front of ONNX Runtime, with dynamic batching."""

__version__ = "0.1.0"
