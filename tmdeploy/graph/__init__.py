"""Torch-free passes over an exported ONNX graph."""
