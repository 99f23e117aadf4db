"""The protocols that existing clients speak: Open Inference Protocol v2, and TensorFlow Serving's REST form.

::

    JSON, or JSON and binary tensors ─┐
    protobuf ─────────────────────────┼─▶ InferRequest ─▶ instances ─▶ (inference) ─▶ rows ─▶ OutputTensor
                                      │                                                          │
    the same forms  ◀─────────────────┴──────────────────────────────────────────────────────────┘

    tensors       what a request says of tensors, checked against the model; rows as tensors
    carriage      HTTP body ⇄ tensors                                         /v2/…/infer
    infer         the hot route
    tensorflow    {"instances": …} ⇄ {"predictions": …}                       /v1/models/{model}:predict
    routes        health, metadata, repository; answered by FastAPI
    operations    the hot routes in the OpenAPI document

Source: Open Inference Protocol (KServe's predict protocol v2) with Triton Inference Server's extensions
"binary tensor data", "classification" and "model repository"; TensorFlow Serving's RESTful API.
"""
