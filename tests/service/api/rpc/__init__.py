"""The gRPC interface, over a real port in this process."""
