"""How the exporter writes the op set: one ONNX node of domain `tmdeploy` for each call of a reference op."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import onnxscript
import torch

from tmdeploy.ops import DOMAIN, VERSION
from tmdeploy.ops.schemas import register_schemas


def translation_table() -> dict[Callable[..., Any], Callable[..., Any]]:
    """`custom_translation_table` for `torch.onnx.export`.

    Plain functions that build one node, not onnxscript functions: the exporter inlines those, and fails on several
    outputs.
    """
    register_schemas()
    ops = onnxscript.values.Opset(DOMAIN, VERSION)

    def token_match(
        metric: Any,
        slots: Any,
        num_prefix: int = 1,
        order: str = "tome",
        metric_eps: float = 0.0,
        deterministic: bool = True,
    ) -> Any:
        return ops.TokenMatch(
            metric,
            slots,
            num_prefix=num_prefix,
            order=order,
            metric_eps=metric_eps,
            deterministic=int(deterministic),
        )

    def token_select(
        score: Any,
        slots: Any,
        metric: Any = None,
        kept: Any = None,
        num_prefix: int = 1,
        leftover: str = "drop",
        order: str = "score",
        metric_eps: float = 0.0,
        deterministic: bool = True,
    ) -> Any:
        return ops.TokenSelect(
            score,
            slots,
            metric,
            kept,
            num_prefix=num_prefix,
            leftover=leftover,
            order=order,
            metric_eps=metric_eps,
            deterministic=int(deterministic),
        )

    def token_reduce(x: Any, map: Any, index: Any, weight: Any = None, mode: str = "wmean") -> Any:  # noqa: A002
        return ops.TokenReduce(x, map, index, weight, mode=mode)

    library = torch.ops.tmdeploy
    return {
        library.token_match.default: token_match,
        library.token_select.default: token_select,
        library.token_reduce.default: token_reduce,
    }
