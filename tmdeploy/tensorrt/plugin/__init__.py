"""The token ops in TensorRT, as ahead-of-time Python plugins (TensorRT >= 10.9): the engine carries the kernels' PTX.

An engine built this way needs neither a plugin library nor Python at run time. Three steps around the parser:

    model, _ = MarkAotPlugins()(model)         # ONNX nodes -> plugin nodes (`graph.mark_aot_plugins`)
    register_plugins()                         # once a process
    ... parse model.SerializeToString() ...
    require_plugin_layers(network, names)      # nothing fell back silently

Nothing here imports TensorRT before `register_plugins`. docs/status.md says what has been run.
"""

from __future__ import annotations

from tmdeploy.tensorrt.plugin.marking import require_plugin_layers
from tmdeploy.tensorrt.plugin.operators import NAMESPACE
from tmdeploy.tensorrt.plugin.plugins import register_plugins
from tmdeploy.tensorrt.plugin.ptx import PtxLibrary

__all__ = ["NAMESPACE", "PtxLibrary", "register_plugins", "require_plugin_layers"]
