"""TensorRT engines: one place for both flavours, TensorRT and TensorRT for RTX. Nothing here imports them at import."""
