"""From ONNX's text format to a FunctionProto."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import onnx
import onnx.parser

from tmdeploy.ops.spec import DOMAIN, Attributes, OpSpec


def parse_body(spec: OpSpec[Any], given: Attributes, lines: str, *, opset: int, doc: str) -> onnx.FunctionProto:
    """Parse the statements of a body.

    Args:
        spec: The op.
        given: Declared as the function's attributes, with these values as defaults: the body is made for them.
        lines: Statements, one per line; blank lines and comments are dropped. (`map` is a keyword of the text format,
            so bodies say `plan_map`.)
        opset: Version of the standard operators.
        doc: Documentation string.
    """
    statements = [line.partition("#")[0].strip() for line in lines.splitlines()]
    body = "\n".join(f"  {statement}" for statement in statements if statement)
    values = given.values()
    last = spec.inputs_for(values)[-1].name  # inputs are known by their places: one in front of it stays
    inputs = spec.input_names[: spec.input_names.index(last) + 1]
    text = (
        f'<domain: "{DOMAIN}", opset_import: ["" : {opset}]>\n'
        f"{spec.name} ({_formal(inputs)}) => ({_formal(spec.output_names)}) {{\n{body}\n}}"
    )
    function = onnx.parser.parse_function(text)
    function.attribute_proto.extend(onnx.helper.make_attribute(key, value) for key, value in values.items())
    function.doc_string = doc
    return function


def _formal(names: Iterable[str]) -> str:
    return ", ".join("plan_map" if name == "map" else name for name in names)


def cosine_lines(a: str, b: str, out: str, *, eps: float, deterministic: bool, engine: bool = False) -> str:
    """Statements for the cosine similarity of rows: `a` [B, Na, C] and `b` [B, Nb, C] to `out` float32 [B, Na, Nb].

    Rules 1 and 2 of docs/ops.md: float64 accumulation, zero norm gives 0, NaN gives -inf.

    Args:
        a: Name of the rows.
        b: Name of the columns.
        out: Name of the result, and prefix of all names in between.
        eps: Norms up to this are zero.
        deterministic: Accumulate in float64.
        engine: For TensorRT, which has no float64 and wants the transposition beside the product.
    """
    wide, kind = (11, "double") if deterministic else (1, "float")
    # ONNX Runtime 1.20 to 1.25 fuse Transpose (and Cast behind it) with MatMul to a FusedMatMul, and have no kernel of
    # that for float64. So a Squeeze, which copies nothing, stands between; it leaves no transposition of the last two.
    transposed = (
        f"""
        {out}_b = Cast <to = {wide}> ({b})
        {out}_bt = Transpose <perm = [0, 2, 1]> ({out}_b)
        """
        if engine or not deterministic
        else f"""
        {out}_two = Constant <value = int64[1] {{2}}> ()
        {out}_b_deep = Unsqueeze ({b}, {out}_middle)
        {out}_bt_deep = Transpose <perm = [0, 3, 1, 2]> ({out}_b_deep)
        {out}_bt_narrow = Squeeze ({out}_bt_deep, {out}_two)
        {out}_bt = Cast <to = {wide}> ({out}_bt_narrow)
        """
    )
    return f"""
        {out}_last = Constant <value = int64[1] {{-1}}> ()
        {out}_middle = Constant <value = int64[1] {{1}}> ()
        {out}_a = Cast <to = {wide}> ({a})
        {transposed}
        {out}_dot = MatMul ({out}_a, {out}_bt)
        {out}_aa = ReduceSumSquare <keepdims = 1> ({out}_a, {out}_last)
        {out}_bb = ReduceSumSquare <keepdims = 1> ({out}_bt, {out}_middle)
        {out}_na = Sqrt ({out}_aa)
        {out}_nb = Sqrt ({out}_bb)
        {out}_norms = Mul ({out}_na, {out}_nb)
        {out}_raw = Div ({out}_dot, {out}_norms)
        {out}_eps = Constant <value = {kind}[1] {{{eps!r}}}> ()
        {out}_za = LessOrEqual ({out}_na, {out}_eps)
        {out}_zb = LessOrEqual ({out}_nb, {out}_eps)
        {out}_zero = Or ({out}_za, {out}_zb)
        {out}_nothing = Constant <value = {kind}[1] {{0.0}}> ()
        {out}_cos = Where ({out}_zero, {out}_nothing, {out}_raw)
        {out}_narrow = Cast <to = 1> ({out}_cos)
        {unordered_last_lines(f"{out}_narrow", out)}
    """


def unordered_last_lines(values: str, out: str) -> str:
    """Statements that replace NaN by -inf in float32 `values` (rule 2)."""
    return f"""
        {out}_isnan = IsNaN ({values})
        {out}_minus = Constant <value = float[1] {{-1.0}}> ()
        {out}_void = Constant <value = float[1] {{0.0}}> ()
        {out}_lowest = Div ({out}_minus, {out}_void)
        {out} = Where ({out}_isnan, {out}_lowest, {values})
    """
