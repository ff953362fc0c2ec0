"""Whether TensorRT's parser took the nodes that were marked for plugins (`graph.mark_aot_plugins`)."""

from __future__ import annotations

import re
from collections.abc import Iterable
from typing import Any

from tmdeploy.errors import CheckFailed


def require_plugin_layers(network: Any, marked: Iterable[str]) -> None:
    """Check after the parser that every marked node became a plugin layer.

    Args:
        network: The `tensorrt.INetworkDefinition` the model was parsed into.
        marked: Names of the marked nodes.

    Raises:
        CheckFailed: A node is missing, or became something else.
    """
    layers = [network.get_layer(i) for i in range(network.num_layers)]
    found = {layer.name for layer in layers if layer.type.name == "PLUGIN_V3"}
    # the parser appends _<number> to a name that is taken
    found |= {re.sub(r"_\d+$", "", name) for name in found}
    wanted = list(marked)
    missing = [name for name in wanted if name not in found]
    if missing:
        raise CheckFailed(
            f"{len(missing)} of {len(wanted)} token nodes did not become plugin layers, the first is {missing[0]}",
            remedy="Register the plugins before parsing",
        )
