"""Test inputs of the ops: random ones, many ties, NaN and vectors of zeros, at the counts where it matters."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tmdeploy.card.metadata import StepRecord
from tmdeploy.ops.limits import r_limit

Feeds = dict[str, NDArray[Any]]

_BATCH, _WIDTH = 2, 6
_FEW, _MORE, _MOST = 8, 23, 600  # patch tokens; a step of a file larger than that is tried with this many


def op_inputs(
    op: str, given: Sequence[str], attributes: Mapping[str, object], steps: Sequence[StepRecord], *, half: bool
) -> list[Feeds]:
    """Inputs of one op, the same at every call.

    Args:
        op: `TokenMatch`, `TokenSelect` or `TokenReduce`.
        given: Inputs that the node has.
        attributes: Attributes of the node.
        steps: The file's steps: the first one's number of tokens is tried too.
        half: The model's tokens are float16.

    Returns:
        Arrays by the name of the input.
    """
    prefix = int(str(attributes.get("num_prefix", 1)))
    tokens = [prefix + _FEW, prefix + _MORE, *(min(step.tokens_in, _MOST) for step in steps[:1])]
    make = {"TokenMatch": _match, "TokenSelect": _select, "TokenReduce": _reduce}[op]
    wide = np.dtype(np.float16 if half else np.float32)
    rng = np.random.default_rng(0)
    feeds = [made for count in tokens for made in make(rng, count, prefix, str(attributes.get("leftover", "")))]
    types = {"x": wide} | ({"metric": wide} if op == "TokenSelect" else {})
    return [
        {name: value.astype(types.get(name, value.dtype), copy=False) for name, value in made.items() if name in given}
        for made in feeds
    ]


def _match(rng: np.random.Generator, tokens: int, prefix: int, _: str) -> Iterator[Feeds]:
    limit = r_limit(tokens, prefix)
    for metric, removed in zip(_metrics(rng, tokens), (limit // 2, limit, min(1, limit)), strict=True):
        yield {"metric": metric, "slots": np.arange(tokens - removed)}
    yield {"metric": _metrics(rng, tokens)[0], "slots": np.arange(tokens)}


def _select(rng: np.random.Generator, tokens: int, prefix: int, leftover: str) -> Iterator[Feeds]:
    patches = tokens - prefix
    scores = rng.random((3, _BATCH, tokens), dtype=np.float32)
    scores[1] = np.round(4 * scores[1])  # ties
    scores[2, 0, prefix + 1] = np.nan
    for score, metric, keep in zip(scores, _metrics(rng, tokens), (patches // 2, patches - 1, 1), strict=True):
        yield _selection(score, metric, prefix + keep, leftover)
    yield _selection(scores[0], _metrics(rng, tokens)[0], tokens, leftover)


def _selection(score: NDArray[np.float32], metric: NDArray[np.float32], stay: int, leftover: str) -> Feeds:
    total = stay + min(1, score.shape[1] - stay) if leftover == "fuse" else stay
    return {"score": score, "metric": metric, "slots": np.arange(total), "kept": np.arange(stay)}


def _reduce(rng: np.random.Generator, tokens: int, prefix: int, _: str) -> Iterator[Feeds]:
    """Plans that merge, that drop, and that fuse into a slot without an anchor; and the identity."""
    for removed, elsewhere in ((tokens // 3, "merge"), (tokens // 2, "drop"), (tokens // 2, "fuse"), (0, "merge")):
        plan, index = np.empty((_BATCH, tokens), np.int32), []
        for image in range(_BATCH):
            order = rng.permutation(tokens).astype(np.int32)
            anchors, rest = np.sort(order[removed:]), order[:removed]
            plan[image, anchors] = np.arange(len(anchors))
            if elsewhere == "merge":
                plan[image, rest] = rng.integers(0, len(anchors), len(rest))
            else:
                plan[image, rest] = -1 if elsewhere == "drop" else len(anchors)
            index.append(np.append(anchors, np.int32(-1)) if elsewhere == "fuse" else anchors)
        yield {
            "x": rng.standard_normal((_BATCH, tokens, _WIDTH), dtype=np.float32),
            "map": plan,
            "index": np.stack(index).astype(np.int32),
            "weight": rng.integers(1, 6, (_BATCH, tokens)).astype(np.float32),
        }


def _metrics(rng: np.random.Generator, tokens: int) -> list[NDArray[np.float32]]:
    """Random; small integers, which tie exactly; and with a NaN and a vector of zeros."""
    shape = (_BATCH, tokens, _WIDTH)
    odd = rng.standard_normal(shape).astype(np.float32)
    odd[0, tokens - 1], odd[-1, tokens - 2] = np.nan, 0.0
    return [rng.standard_normal(shape).astype(np.float32), rng.integers(-2, 3, shape).astype(np.float32), odd]
