"""A snapshot as a SavedModel, LiteRT or ONNX model."""
