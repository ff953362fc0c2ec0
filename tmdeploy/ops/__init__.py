"""The op set `tmdeploy`: two planners and one reduce (docs/ops.md is the normative text).

- `spec`: inputs, outputs, attributes and version, from which the rest of the interface is made
- `schemas`: what the ops look like to ONNX
- `reference`: what they compute, in PyTorch (imports torch)
- `bodies`: what they compute, in standard ONNX ops
"""

from tmdeploy.ops.spec import DOMAIN, VERSION

__all__ = ["DOMAIN", "VERSION"]
