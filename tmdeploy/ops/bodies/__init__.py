"""Function bodies: the op set in standard ONNX ops, so that one file runs where no native kernel is.

A body is specialised to the attributes its nodes carry, because ONNX functions cannot branch on an attribute without
`If`. Bodies are written in ONNX's text format, which reads like the algorithm; none uses ScatterElements with a
reduction, which TensorRT rejects or silently ignores. No torch in here.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import onnx

from tmdeploy.ops.bodies.counting import counting_match_lines, counting_select_lines
from tmdeploy.ops.bodies.text import parse_body
from tmdeploy.ops.bodies.token_match import match_lines
from tmdeploy.ops.bodies.token_reduce import reduce_lines
from tmdeploy.ops.bodies.token_select import select_lines
from tmdeploy.ops.spec import OPS, Value

_Bodies = dict[str, tuple[Callable[[Any], str], str]]
_BODIES: _Bodies = {
    "TokenMatch": (match_lines, "Bipartite soft matching"),
    "TokenSelect": (select_lines, "Selection by score"),
    "TokenReduce": (reduce_lines, "Apply a plan"),
}
_COUNTING: _Bodies = {
    **_BODIES,
    "TokenMatch": (counting_match_lines, "Bipartite soft matching, by counting"),
    "TokenSelect": (counting_select_lines, "Selection by score, by counting"),
}

MIN_OPSET, MAX_OPSET = 18, 23


def function_body(
    op: str, attributes: Mapping[str, Value], opset: int, *, counting: bool = False
) -> onnx.FunctionProto:
    """The body of one op in standard ops.

    Args:
        op: `TokenMatch`, `TokenSelect` or `TokenReduce`.
        attributes: What the nodes of this op carry; missing ones take the op's defaults.
        opset: Version of the standard operators, 18 to 23.
        counting: Planners that count instead of sorting: more arithmetic in fewer kernels, for engines.

    Raises:
        ValueError: An attribute value that the op does not have, or an opset outside the range.
    """
    if not MIN_OPSET <= opset <= MAX_OPSET:
        raise ValueError(f"function bodies exist for opset {MIN_OPSET} to {MAX_OPSET}, not {opset}")
    spec = OPS[op]
    given = spec.attributes.read(attributes)
    lines, title = (_COUNTING if counting else _BODIES)[op]
    return parse_body(spec, given, lines(given), opset=opset, doc=f"{title}: docs/ops.md")


__all__ = ["MAX_OPSET", "MIN_OPSET", "function_body"]
