"""PyTorch as a target: the source model's own modules, quantized, run eagerly or compiled."""
