"""Quantization on ONNX graphs: statistics, ranges, placement; numpy and onnx only."""
