"""ONNX Runtime for x86 servers, and for ARM servers and mobile devices."""
