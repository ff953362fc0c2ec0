"""Run a model of a test with ONNX Runtime, on one thread."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray


def outputs(model: onnx.ModelProto, **feeds: NDArray[np.generic]) -> list[NDArray[Any]]:
    """All outputs, in order."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 3, 1
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return list(session.run(None, feeds))
