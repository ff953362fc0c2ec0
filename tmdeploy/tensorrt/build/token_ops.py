"""How the ops of the domain get into an engine: by a plugin library, by ahead-of-time plugins, or as standard ops."""

from __future__ import annotations

from dataclasses import dataclass

import onnx

from tmdeploy.errors import EnvironmentMissing, UnsupportedModel
from tmdeploy.graph.base import run_pass, run_passes
from tmdeploy.graph.expand_ops import ExpandOps
from tmdeploy.graph.mark_aot_plugins import MarkAotPlugins
from tmdeploy.graph.mark_plugins import MarkPlugins
from tmdeploy.graph.name_nodes import NameNodes
from tmdeploy.ops import DOMAIN
from tmdeploy.system.files import sha256
from tmdeploy.tensorrt.build.request import BuildRequest
from tmdeploy.tensorrt.cuda.gpu import Gpu
from tmdeploy.tensorrt.plugin import PtxLibrary, register_plugins
from tmdeploy.tensorrt.record.sidecar import PluginLayer, PtxRecord, Vehicle
from tmdeploy.tensorrt.sdk.flavor import Flavor, Toolkit

_AMPERE = (8, 0)
_NOT_COMPATIBLE = (
    "--version-compatible: built from the function bodies (portable lowering), because NVIDIA does not say that "
    "ahead-of-time plugins run on later versions; --plugins aot takes them all the same"
)


@dataclass(frozen=True)
class Lowered:
    """A graph of ops that the parser knows.

    Attributes:
        model: The graph; each of its nodes has a name of its own.
        vehicle: What carries the ops of the domain.
        plugin_nodes: Names of the nodes that have to become plugin layers.
        notes: Sentences for the user.
        ptx: Kernels that ahead-of-time plugins bring.
    """

    model: onnx.ModelProto
    vehicle: Vehicle
    plugin_nodes: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    ptx: tuple[PtxRecord, ...] = ()


def lower_ops(model: onnx.ModelProto, request: BuildRequest, toolkit: Toolkit, gpu: Gpu | None) -> Lowered:
    """Make the ops of the domain plugin nodes if there are plugins, else their function bodies.

    Args:
        model: Its nodes have names of their own; is changed.
        request: Says which plugins.
        toolkit: The TensorRT that builds; only full TensorRT has plugins.
        gpu: What the engine is built on.

    Raises:
        EnvironmentMissing: Ahead-of-time plugins were asked for, and cannot be had here.
        UnsupportedModel: Ahead-of-time plugins were asked for, and there is none for a node.
    """
    notes: tuple[str, ...] = ()
    nodes = tuple(node.name for node in model.graph.node if node.domain == DOMAIN)
    if not nodes:
        return Lowered(_standard(model), Vehicle.NONE)
    if toolkit.flavor is Flavor.RTX:
        if request.plugins == "auto":
            notes = ("TensorRT-RTX has no plugins: built from the function bodies (portable lowering)",)
    elif request.plugin is not None:
        return Lowered(run_pass(model, MarkPlugins())[0], Vehicle.LIBRARY, nodes)
    elif request.plugins == "auto" and request.options.version_compatible:
        notes = (_NOT_COMPATIBLE,)
    elif request.plugins != "none":
        try:
            marked, ptx = _ahead_of_time(model, request, gpu)
            return Lowered(marked, Vehicle.AOT, nodes, ptx=ptx)
        except (EnvironmentMissing, UnsupportedModel) as error:
            if request.plugins == "aot":
                raise
            notes = (f"built from the function bodies (portable lowering), without plugins: {error.one_line()}",)
    return Lowered(_standard(model), Vehicle.NONE, notes=notes)


def _ahead_of_time(
    model: onnx.ModelProto, request: BuildRequest, gpu: Gpu | None
) -> tuple[onnx.ModelProto, tuple[PtxRecord, ...]]:
    capability = None if gpu is None else gpu.compute_capability
    if capability is not None and request.options.hardware_compatible == "ampere+":
        capability = min(capability, _AMPERE)  # the engine's PTX has to suit the oldest GPU it may run on
    library = PtxLibrary(capability=capability)
    marked, _ = run_pass(model, MarkAotPlugins())
    try:
        register_plugins(library)
    except EnvironmentMissing:
        raise
    except Exception as error:  # an experimental interface: whatever changed there, standard ops can still be built
        first = (str(error).strip().splitlines() or ["no reason given"])[0]
        raise EnvironmentMissing(
            f"this TensorRT does not take the plugins ({type(error).__name__}: {first})",
            remedy="Use the C++ plugin library (--plugin)",
        ) from error
    ptx = tuple(
        PtxRecord(file=path.name, sha256=sha256(path), architecture=path.stem.rpartition(".")[2])
        for path in library.paths.values()
    )
    return marked, ptx


def plugin_layers(model: onnx.ModelProto, nodes: tuple[str, ...]) -> tuple[PluginLayer, ...]:
    """What TensorRT's parser looks up for the plugin nodes: by type, `plugin_version` and `plugin_namespace`.

    Args:
        model: As the parser gets it.
        nodes: Names of its plugin nodes.
    """
    found = []
    for node in model.graph.node:
        if node.name in nodes:
            texts = {a.name: a.s.decode() for a in node.attribute if a.type == onnx.AttributeProto.STRING}
            version, namespace = texts.get("plugin_version", "1"), texts.get("plugin_namespace", "")
            found.append(PluginLayer(node=node.name, creator=node.op_type, version=version, namespace=namespace))
    return tuple(found)


def _standard(model: onnx.ModelProto) -> onnx.ModelProto:
    return run_passes(model, [ExpandOps(), NameNodes()])[0]
