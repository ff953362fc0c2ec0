"""Write the tables of docs/ops.md from tmdeploy/ops/spec.py; with --check, only say whether they are current.

python scripts/make_op_tables.py
"""

from __future__ import annotations

import re
import sys
from collections.abc import Iterator
from pathlib import Path

from tmdeploy.ops.spec import OPS, VERSION, Attribute, OpSpec, Tensor

PAGE = Path(__file__).parents[1] / "docs" / "ops.md"
_BLOCK = re.compile(r"(<!-- (\w+): made by scripts/make_op_tables.py -->\n).*?(<!-- end -->)", re.DOTALL)
_TITLE = re.compile(r"(?<=^# The op set `tmdeploy`, version )\d+")


def table(spec: OpSpec) -> str:
    """Inputs, outputs and attributes of one op."""
    rows = ["| | name | type, shape | meaning |", "|---|---|---|---|", *_tensors(spec)]
    for name, attribute in spec.attributes.declared().items():
        default = spec.attributes().values()[name]
        shown = f"`{default}`" if isinstance(default, str) else f"{default:g}"
        rows.append(f"| attr | `{name}` = {shown} | {_type(attribute)} | {attribute.description} |")
    return "\n".join(rows) + "\n"


def _tensors(spec: OpSpec) -> Iterator[str]:
    typed = {tensor.type: f"{tensor.name}'s type" for tensor in reversed(spec.inputs)}
    for tensor in spec.inputs:
        meaning = tensor.description
        if tensor.needed_by is not None:
            meaning = f"for `{' = '.join(tensor.needed_by)}`: {meaning}"
        yield _row("in, optional" if tensor.optional else "in", tensor, "float", meaning)
    for tensor in spec.outputs:
        yield _row("out", tensor, typed.get(tensor.type, ""), tensor.description)


def _row(kind: str, tensor: Tensor, any_float: str, meaning: str) -> str:
    type_ = any_float if tensor.type.startswith("T") else tensor.type
    return f"| {kind} | `{tensor.name}` | {type_} `{tensor.shape}` | {meaning} |"


def _type(attribute: Attribute) -> str:
    if attribute.choices:
        return ", ".join(f"`{choice}`" for choice in attribute.choices)
    if isinstance(attribute.default, bool):
        return "int, 0 or 1"
    if attribute.bounds is not None:
        return "int, {} to {}".format(*attribute.bounds)
    return type(attribute.default).__name__


def current(text: str) -> str:
    """The page with its tables and its version as the spec has them."""
    text = _TITLE.sub(str(VERSION), text)
    return _BLOCK.sub(lambda found: found[1] + table(OPS[found[2]]) + found[3], text)


def main() -> int:
    """Write the page, or check it."""
    text = PAGE.read_text(encoding="utf-8")
    if sys.argv[1:] == ["--check"]:
        if text == current(text) and {found[1] for found in _BLOCK.findall(text)} == set(OPS):
            return 0
        print(f"{PAGE} is not what the spec says. Run: python scripts/make_op_tables.py", file=sys.stderr)
        return 1
    PAGE.write_text(current(text), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
