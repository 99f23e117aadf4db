"""The program that makes the model file: train, analyse, fold, export, verify, publish."""

import os

# ONNX Runtime would write a device id into the home folder and report its use; it reads this on import.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
