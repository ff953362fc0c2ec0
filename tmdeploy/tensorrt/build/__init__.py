"""From an ONNX file to an engine."""
