"""The op set as native code: finding the library for ONNX Runtime, and building it (docs/ops.md, Lowerings)."""

from tmdeploy.native.library import ORT_LIBRARY, NativeLibrary, ort_libraries, ort_library, refuse_native

__all__ = ["ORT_LIBRARY", "NativeLibrary", "ort_libraries", "ort_library", "refuse_native"]
