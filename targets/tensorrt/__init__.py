"""TensorRT for NVIDIA GPUs, and TensorRT for RTX: graphs, engines, sessions."""
