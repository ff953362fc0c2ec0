"""Every op of an exported file by itself, in each way in which it can be computed: native kernels, function bodies.

A registered kernel hides the body of the same name, and the other way round, so that running the whole file proves one
of them. The ops are small: here each is cut out as a model of one node, run on test inputs with ties, NaN and extreme
counts, and compared with what docs/ops.md says. That is computed by the body this version of tmdeploy writes for the
node's attributes, run by the evaluator of the onnx package: neither ONNX Runtime nor a kernel takes part, nor PyTorch,
with which the tests compare it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tmdeploy.backends.base import Part, Runner
from tmdeploy.backends.onnxruntime.runner import open_bodies
from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.errors import ArtifactError, TmdeployError
from tmdeploy.graph.onnx_file import read_onnx, standard_opset
from tmdeploy.ops.bodies import MAX_OPSET, MIN_OPSET, function_body
from tmdeploy.ops.spec import DOMAIN, MAX_PREFIX, OPS, VERSION
from tmdeploy.system.boundary import first_line
from tmdeploy.validate.op_inputs import Feeds, op_inputs

if TYPE_CHECKING:
    import onnx

_EXACT = {"map", "index", "count"}
_FLOAT_RTOL = 1e-6  # of similarities and sizes, which are float32 whatever the model's precision


@dataclass(frozen=True)
class OpCall:
    """How nodes of a file call an op: those with the same attributes and inputs are one.

    Attributes:
        op: Name.
        node: Name of the first such node.
        given: Which of the op's inputs it has, by name.
        attributes: Attributes of the node.
    """

    op: str
    node: str
    given: tuple[str, ...]
    attributes: tuple[tuple[str, int | float | str], ...]

    @property
    def plausible(self) -> bool:
        """Whether a body for these attributes is of a sensible size."""
        prefix = dict(self.attributes).get("num_prefix", 1)
        return isinstance(prefix, int) and 0 <= prefix <= MAX_PREFIX


@dataclass(frozen=True)
class Realisation:
    """One way in which the file's ops can be computed, and what was found.

    Attributes:
        name: `native` or `bodies`.
        ops: Ops that were run.
        inputs: Test inputs of all of them together.
        wrong: One line for each op that computes something else.
        foreign: For bodies: ops whose body differs from what this version writes.
    """

    name: Literal["native", "bodies"]
    ops: tuple[str, ...]
    inputs: int
    wrong: tuple[str, ...] = ()
    foreign: tuple[str, ...] = ()


@dataclass
class _Found:
    inputs: int = 0
    wrong: list[str] = field(default_factory=list)


def prove_ops(candidate: Runner, op_rtol: float) -> tuple[Realisation, ...]:
    """Run every op of the candidate's file alone: by the native kernels it runs with, and by the file's bodies.

    Args:
        candidate: Runner of an exported file; others have no separate ops.
        op_rtol: Largest error of reduced tokens, relative to their largest magnitude.

    Returns:
        One per realisation; none where the file has no nodes of the op set.
    """
    metadata, parts = candidate.metadata, candidate.parts
    if metadata is None or parts is None:
        return ()
    model, _ = read_onnx(candidate.path, weights=False)
    calls = op_calls(model)
    if not calls:
        return ()
    found = []
    if candidate.facts.native:
        found.append(_prove("native", model, calls, metadata, op_rtol, parts.open_part))
    with_body = {function.name: function for function in model.functions if function.domain == DOMAIN}
    if with_body:
        path, opset = candidate.path, standard_opset(model)
        proved = _prove("bodies", model, calls, metadata, op_rtol, lambda part: open_bodies(part, path))
        foreign = tuple(call.op for call in calls if not _as_we_write(with_body.get(call.op), call, opset))
        found.append(Realisation(proved.name, proved.ops, proved.inputs, proved.wrong, foreign))
    return tuple(found)


def op_calls(model: onnx.ModelProto) -> tuple[OpCall, ...]:
    """The different ways in which a graph calls the ops, in its order."""
    import onnx

    calls: dict[tuple[object, ...], OpCall] = {}
    for node in model.graph.node:
        if node.domain != DOMAIN or node.op_type not in OPS:
            continue
        values = {entry.name: onnx.helper.get_attribute_value(entry) for entry in node.attribute}
        attributes = tuple(
            sorted((name, value.decode() if isinstance(value, bytes) else value) for name, value in values.items())
        )
        given = tuple(name for name, value in zip(OPS[node.op_type].input_names, node.input, strict=False) if value)
        call = OpCall(node.op_type, node.name or node.op_type, given, attributes)
        calls.setdefault((call.op, given, attributes), call)
    return tuple(calls.values())


def expected(call: OpCall, feeds: Feeds) -> list[NDArray[Any]]:
    """What the op computes by docs/ops.md.

    Raises:
        ValueError: An attribute value that the op does not have.
    """
    from onnx.reference import ReferenceEvaluator
    from onnx.reference.op_run import OpRun

    class GatherElements(OpRun):
        """The evaluator's own fails beyond as many choices as numpy.choose takes, 32 or 64."""

        op_domain = ""

        def _run(self, data: NDArray[Any], indices: NDArray[Any], axis: int) -> tuple[NDArray[Any]]:
            return (np.take_along_axis(data, indices, axis),)

    body = function_body(call.op, dict(call.attributes), 20)
    formal = {"map": "plan_map"}
    given = {formal.get(name, name): value for name, value in feeds.items()}
    with np.errstate(all="ignore"):
        return list(ReferenceEvaluator(body, new_ops=[GatherElements]).run(None, given, attributes={}))


def _prove(
    name: Literal["native", "bodies"],
    model: onnx.ModelProto,
    calls: Sequence[OpCall],
    metadata: ArtifactMetadata,
    op_rtol: float,
    open_part: Callable[[bytes], Part],
) -> Realisation:
    found = _Found()
    for call in calls:
        try:
            reason = _difference(model, call, metadata, op_rtol, open_part, found)
        except Exception as error:  # whatever a broken body or kernel does
            if isinstance(error, TmdeployError) and not isinstance(error, ArtifactError):
                raise
            reason = error.message if isinstance(error, ArtifactError) else first_line(error)
        if reason is not None:
            found.wrong.append(f"{call.op} (node {call.node}): {reason}")
    return Realisation(name, tuple(dict.fromkeys(call.op for call in calls)), found.inputs, tuple(found.wrong))


def _difference(
    model: onnx.ModelProto,
    call: OpCall,
    metadata: ArtifactMetadata,
    op_rtol: float,
    open_part: Callable[[bytes], Part],
    found: _Found,
) -> str | None:
    """The difference in words; None if there is none."""
    attributes = dict(call.attributes)
    if not call.plausible:
        return f"num_prefix is {attributes.get('num_prefix')}"
    half = metadata.precision == "fp16"
    inputs = op_inputs(call.op, call.given, attributes, metadata.steps, half=half)
    part: Part = open_part(_one_node(model, call, inputs[0]).SerializeToString())
    differing: dict[str, int] = {}
    for feeds in inputs:
        wanted = expected(call, feeds)
        got = part.run(OPS[call.op].output_names, dict(feeds))
        found.inputs += 1
        for output, value in zip(OPS[call.op].output_names, wanted, strict=True):
            if not _same(output, value, got[output], op_rtol):
                differing[output] = differing.get(output, 0) + 1
    if not differing:
        return None
    return ", ".join(f"{output} differs on {count} of {len(inputs)} test inputs" for output, count in differing.items())


def _same(output: str, wanted: NDArray[Any], got: NDArray[Any], op_rtol: float) -> bool:
    if wanted.shape != got.shape:
        return False
    if output in _EXACT:
        return bool((wanted == got).all())
    ours, theirs = wanted.astype(np.float64), got.astype(np.float64)
    limit = (op_rtol if output == "y" else _FLOAT_RTOL) * (float(np.abs(ours[np.isfinite(ours)]).max(initial=0.0)) or 1)
    with np.errstate(invalid="ignore"):
        return bool(((ours == theirs) | (np.abs(ours - theirs) <= limit)).all())


def _one_node(model: onnx.ModelProto, call: OpCall, feeds: Feeds) -> onnx.ModelProto:
    """The call alone, with all functions of the file: a body may call others."""
    from onnx import TensorProto, helper

    names = [name if name in call.given else "" for name in OPS[call.op].input_names]
    while names and not names[-1]:
        names.pop()
    types = {"map": TensorProto.INT32, "index": TensorProto.INT32, "count": TensorProto.INT32}
    if call.op == "TokenReduce":
        types["y"] = helper.np_dtype_to_tensor_dtype(feeds["x"].dtype)
    node = helper.make_node(call.op, names, OPS[call.op].output_names, domain=DOMAIN)
    node.attribute.extend(helper.make_attribute(name, value) for name, value in call.attributes)
    graph = helper.make_graph(
        [node],
        "op",
        [
            helper.make_tensor_value_info(
                name,
                helper.np_dtype_to_tensor_dtype(feeds[name].dtype),
                [f"{name}_{axis}" for axis in range(feeds[name].ndim)],
            )
            for name in names
            if name
        ],
        [
            helper.make_tensor_value_info(name, types.get(name, TensorProto.FLOAT), None)
            for name in OPS[call.op].output_names
        ],
    )
    opsets = {entry.domain: entry.version for entry in model.opset_import}
    opsets.setdefault(DOMAIN, VERSION)
    return helper.make_model(
        graph,
        functions=model.functions,
        opset_imports=[helper.make_opsetid(domain, version) for domain, version in opsets.items()],
        ir_version=model.ir_version,
    )


def _as_we_write(function: onnx.FunctionProto | None, call: OpCall, opset: int) -> bool:
    """Whether a body has the nodes that this version writes for these attributes."""
    if function is None or not call.plausible or not MIN_OPSET <= opset <= MAX_OPSET:
        return False
    try:
        ours = function_body(call.op, dict(call.attributes), opset)
    except (ValueError, TypeError):
        return False
    same_names = list(ours.input) == list(function.input) and list(ours.output) == list(function.output)
    return same_names and [_text(node) for node in ours.node] == [_text(node) for node in function.node]


def _text(node: onnx.NodeProto) -> tuple[object, ...]:
    attributes = sorted((entry.name, entry.SerializeToString(deterministic=True)) for entry in node.attribute)
    return node.op_type, node.domain, list(node.input), list(node.output), attributes
