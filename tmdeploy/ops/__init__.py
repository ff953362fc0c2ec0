"""The op set `tmdeploy` version 1: two planners and one reduce (docs/ops.md is the normative text).

- `schemas`: what the ops look like to ONNX
- `reference`: what they compute, in PyTorch (imports torch)
- `bodies`: what they compute, in standard ONNX ops
"""

DOMAIN = "tmdeploy"
VERSION = 1

__all__ = ["DOMAIN", "VERSION"]
