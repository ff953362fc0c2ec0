"""The GPU: memory, streams, clocks and arrays on it, through cuda-bindings."""
