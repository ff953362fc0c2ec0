"""`--keep-fp32` and `--keep-float`: lists of what stays in float, as groups, op types and patterns of node names."""

from __future__ import annotations

import fnmatch
from collections.abc import Sequence

import onnx_ir as ir

from tmdeploy.errors import UsageError


def parse_keep(text: str | None, default: Sequence[str], option: str) -> tuple[str, ...]:
    """`planner,Erf` replaces the default set; `+Erf,-softmax` widens and narrows it.

    Args:
        text: What the user typed; None takes the default.
        default: The default set.
        option: Name of the option, for messages.

    Raises:
        UsageError: Both forms mixed, or a group taken out that is not in it.
    """
    if text is None:
        return tuple(default)
    entries = [entry.strip() for entry in text.split(",") if entry.strip()]
    signed = [entry for entry in entries if entry[0] in "+-"]
    if not signed:
        return tuple(entries)
    if len(signed) != len(entries):
        raise UsageError(f"{option} {text}: mixes entries with and without a sign", remedy="Give all or none a sign")
    kept = list(default)
    for entry in signed:
        name = entry[1:]
        if entry[0] == "+":
            kept.append(name)
        elif name in kept:
            kept.remove(name)
        else:
            raise UsageError(f"{option} {text}: '{name}' is not in the set ({', '.join(kept)})")
    return tuple(kept)


def matches(node: ir.Node, entry: str) -> bool:
    """Whether an entry is the node's op type, or a pattern of its name."""
    return node.op_type == entry or fnmatch.fnmatchcase(str(node.name), entry)
