"""Passes over the translated graph, one transformation a file. They need onnx_ir, not torch."""
