"""The Open Inference Protocol over gRPC. Imported only where the setting ``grpc_port`` asks for it.

::

    ModelInfer      protobuf ─▶ InferRequest ─▶ (service.api.protocol.infer) ─▶ OutputTensor ─▶ protobuf
    the others      as the routes of the same meaning

    statuses   the one table from reasons to gRPC's statuses
    call       one remote call: who, since when, until when; its refusal
    messages   protobuf ⇄ the protocol's tensors
    methods    what each method does
    server     the port, with health and reflection

    open_inference.proto ──`make grpc`──▶ open_inference_pb2.py, .pyi

Source: Open Inference Protocol (gRPC), gRPC Health Checking Protocol, gRPC Server Reflection Protocol.
"""
