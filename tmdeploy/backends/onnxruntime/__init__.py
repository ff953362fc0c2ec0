"""ONNX Runtime on the CPU, the embedded default, and on the GPU (CUDA and TensorRT providers). No torch in here."""
