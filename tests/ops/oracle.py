"""The three ops once more, as slow loops straight from docs/ops.md, sharing no code with the library."""

from __future__ import annotations

import math

import numpy as np


def similarity(a: np.ndarray, b: np.ndarray, eps: float = 0.0) -> float:
    norm_a, norm_b = math.sqrt(float((a * a).sum())), math.sqrt(float((b * b).sum()))
    if norm_a <= eps or norm_b <= eps:
        return 0.0
    value = np.float32(float(a @ b) / (norm_a * norm_b))
    return float("-inf") if np.isnan(value) else float(value)


def match(metric: np.ndarray, total: int, prefix: int, order: str = "tome"):
    """One image: metric [N, C] to map [N], index [M], sim [N]."""
    tokens = len(metric)
    removed = tokens - total
    sim = np.ones(tokens, np.float32)
    if removed == 0:
        return np.arange(tokens), np.arange(tokens), sim
    metric = metric.astype(np.float64)
    sources = [t for t in range(prefix, tokens) if t % 2 == 0]
    targets = [t for t in range(prefix, tokens) if t % 2 == 1]
    best = {}
    for a in sources:
        values = [similarity(metric[a], metric[b]) for b in targets]
        choice = max(range(len(targets)), key=lambda i: (values[i], -i))
        best[a] = (values[choice], targets[choice])
    ranked = sorted(sources, key=lambda a: (-best[a][0], a))
    merged, kept = ranked[:removed], ranked[removed:]
    if order == "tome":
        kept = sorted(kept)
    index = [*range(prefix), *kept, *targets]
    slot = {token: position for position, token in enumerate(index)}
    plan = np.array([slot[t] if t in slot else slot[best[t][1]] for t in range(tokens)])
    for token in merged:
        sim[token] = best[token][0]
    return plan, np.array(index), sim


def select(score: np.ndarray, keep: int, prefix: int, leftover: str, order: str, metric: np.ndarray | None = None):
    """One image: score [N] to map [N], index [M], sim [N]."""
    tokens = len(score)
    value = [float("-inf") if np.isnan(s) else float(s) for s in score]
    ranked = sorted(range(prefix, tokens), key=lambda t: (-value[t], t))
    kept, rest = ranked[:keep], ranked[keep:]
    if order == "index":
        kept = sorted(kept)
    index = [*range(prefix), *kept]
    slot = {token: position for position, token in enumerate(index)}
    sim = np.ones(tokens, np.float32)
    plan = np.array([slot.get(t, -1) for t in range(tokens)])
    if leftover == "fuse" and rest:
        plan[rest] = len(index)
        index.append(-1)
    if leftover == "nearest":
        wide = metric.astype(np.float64)
        for token in rest:
            values = {t: similarity(wide[token], wide[t]) for t in sorted(kept)}
            nearest = max(sorted(kept), key=lambda t: (values[t], -t))
            plan[token], sim[token] = slot[nearest], values[nearest]
    return plan, np.array(index), sim


def reduce(x: np.ndarray, plan: np.ndarray, index: np.ndarray, weight: np.ndarray, mode: str):
    """One image, in float64: x [N, F] to y [M, F], wsum [M]."""
    x, weight = x.astype(np.float64), weight.astype(np.float64)
    y, wsum = np.zeros((len(index), x.shape[1])), np.zeros(len(index))
    for slot, anchor in enumerate(index):
        members = [t for t in range(len(x)) if plan[t] == slot]
        if not members:
            continue
        w = weight[members]
        wsum[slot] = w.sum()
        group = x[members]
        norms = np.sqrt((group**2).sum(1))
        mean = group.mean(0)
        if mode == "sum":
            y[slot] = (group * w[:, None]).sum(0)
        elif mode == "wmean":
            zero = x[anchor] if anchor >= 0 else 0.0
            y[slot] = zero if w.sum() == 0 else (group * w[:, None]).sum(0) / w.sum()
        elif mode == "mean":
            y[slot] = mean
        elif mode == "max":
            y[slot] = group.max(0)
        elif mode == "anchor":
            y[slot] = x[anchor] if anchor >= 0 else 0.0
        else:
            base = np.sqrt((mean**2).sum()) if mode == "mlerp" else (norms[members.index(anchor)] if anchor >= 0 else 0)
            y[slot] = mean * norms.max() / (base if base > 0 else 1.0)
    return y, wsum
