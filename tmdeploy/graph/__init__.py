"""ONNX graphs: `onnx_file` reads them, passes change them, one per file (`base`), and a few modules look at them only.

Those are `planners` (which nodes decide), `keep` (lists of what stays in float) and `fingerprint` (a checksum).
"""

from tmdeploy.graph.base import Change, Pass, run_pass, run_passes

__all__ = ["Change", "Pass", "run_pass", "run_passes"]
