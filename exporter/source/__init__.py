"""What goes in: the encoder, its ONNX graph, the texts."""
