"""How far the ops go."""

from __future__ import annotations


def r_limit(tokens: int, prefix: int) -> int:
    """Largest r that one bipartite match can merge: half of the patch tokens (ToMe, merge.py; methods.md 17.1)."""
    return max(0, (tokens - prefix) // 2)
