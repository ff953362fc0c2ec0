"""TensorRT engines: one place for both flavors, TensorRT and TensorRT for RTX. Nothing here imports them at import."""
