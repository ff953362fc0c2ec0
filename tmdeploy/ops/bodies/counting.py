"""Planners in standard ops without a sort or a scatter: a token's place is the number of tokens before it.

Where every op is a kernel launch, comparing all tokens with all others is cheaper than sorting: the compiler fuses the
comparison, the masks and the sum into one kernel. On a CPU it is the other way round, so these are for engines
(docs/benchmarks.md counts the kernels). Same plans as the sorting bodies, which tests show.

In the names, `row` is the token that is placed, [N, 1], and `column` the one it is compared with, [1, N].
"""

from __future__ import annotations

from tmdeploy.ops.bodies.text import cosine_lines, unordered_last_lines
from tmdeploy.ops.spec import MatchAttributes, SelectAttributes


def counting_match_lines(given: MatchAttributes) -> str:
    """Statements of TokenMatch for one set of attribute values; docs/ops.md says what they mean."""
    prefix, eps, deterministic = given.num_prefix, given.metric_eps, given.deterministic
    kept_place = {
        "tome": f"""
            in_b_not = Not (in_b)
            stays_in_front = And (stays, in_b_not)
            {_count_lines("stays_in_front", "before", "kept_place")}
        """,
        "tome_unsorted": """
            rank_of_kept = Sub (rank, removed)
            place_of_kept = Add (rank_of_kept, prefix_width)
            kept_place = Where (is_prefix, token, place_of_kept)
        """,
    }[given.order]
    first_b = prefix + 1 - prefix % 2
    return f"""
        {_token_lines("metric", prefix)}
        total = Shape (slots)
        removed = Sub (tokens, total)
        two = Constant <value = int64[1] {{2}}> ()
        first_b = Constant <value = int64[1] {{{first_b}}}> ()
        parity = Mod (token, two)
        is_odd = Equal (parity, one)
        is_even = Not (is_odd)
        in_a = And (is_patch, is_even)
        in_b = And (is_patch, is_odd)

        # every token's most similar B token; only A tokens will use it
        {_nearest_lines("metric", "in_b", eps=eps, deterministic=deterministic)}
        # the best proposals of A merge
        {_rank_lines("best", "in_a")}
        early = Less (rank, removed)
        merged = And (early, in_a)
        stays = Not (merged)

        # slots: prefix and kept A, then all B
        {kept_place}
        b_padded = Sub (tokens, first_b)
        b_padded_up = Add (b_padded, one)
        count_b = Div (b_padded_up, two)
        first_target = Sub (total, count_b)
        b_twice = Sub (token, first_b)
        b_number = Div (b_twice, two)
        b_place = Add (b_number, first_target)
        nearest_twice = Sub (nearest, first_b)
        nearest_number = Div (nearest_twice, two)
        nearest_place = Add (nearest_number, first_target)
        front_place = Where (merged, nearest_place, kept_place)
        planned = Where (in_b, b_place, front_place)

        # r = 0 is the identity
        nothing = Equal (removed, zero)
        map_wide = Where (nothing, token, planned)
        {_index_lines("stays")}
        unmerged_sim = Constant <value = float[1] {{1.0}}> ()
        sim = Where (merged, best, unmerged_sim)
    """


def counting_select_lines(given: SelectAttributes) -> str:
    """Statements of TokenSelect for one set of attribute values; docs/ops.md says what they mean."""
    prefix, eps, deterministic = given.num_prefix, given.metric_eps, given.deterministic
    kept_place = {
        "score": """
            place_by_rank = Add (rank, prefix_width)
            kept_place = Where (is_prefix, token, place_by_rank)
        """,
        "index": _count_lines("stays", "before", "kept_place"),
    }[given.order]
    rest_lines = {
        "drop": "rest_place = Constant <value = int64[1] {-1}> ()",
        "fuse": "rest_place = Identity (stay)",
        "nearest": f"""
            kept_patch = And (stays, is_patch)
            kept_column = Unsqueeze (kept_patch, middle)
            {_nearest_lines("metric", "kept_column", eps=eps, deterministic=deterministic)}
            rest_place = GatherElements <axis = 1> (kept_place, nearest)
        """,
    }
    merges = given.leftover == "nearest"
    return f"""
        {_token_lines("score", prefix)}
        total = Shape (slots)
        stay = {"Shape (kept)" if given.leftover == "fuse" else "Identity (total)"}
        chosen_count = Sub (stay, prefix_width)
        score_wide = Cast <to = 1> (score)
        {unordered_last_lines("score_wide", "ordered")}
        {_rank_lines("ordered", "is_patch")}
        early = Less (rank, chosen_count)
        stays = Or (early, is_prefix)
        {kept_place}
        {rest_lines[given.leftover]}
        map_wide = Where (stays, kept_place, rest_place)
        {_index_lines("stays")}
        unmerged_sim = Constant <value = float[1] {{1.0}}> ()
        sim = {"Where (stays, unmerged_sim, best)" if merges else "Expand (unmerged_sim, map_shape)"}
        total_narrow = Cast <to = 6> (total)
        batch = Shape <start = 0, end = 1> (score)
        count = Expand (total_narrow, batch)
    """


def _token_lines(source: str, prefix: int) -> str:
    """Statements for `token` [N], who is `is_prefix` or `is_patch` [N], and who comes `before` whom [N, N]."""
    return f"""
        zero = Constant <value = int64[1] {{0}}> ()
        one = Constant <value = int64[1] {{1}}> ()
        last = Constant <value = int64[1] {{-1}}> ()
        middle = Constant <value = int64[1] {{1}}> ()
        prefix_width = Constant <value = int64[1] {{{prefix}}}> ()
        zero_scalar = Squeeze (zero)
        one_scalar = Squeeze (one)
        tokens = Shape <start = 1, end = 2> ({source})
        tokens_scalar = Squeeze (tokens)
        token = Range (zero_scalar, tokens_scalar, one_scalar)
        token_row = Unsqueeze (token, last)
        is_prefix = Less (token, prefix_width)
        is_patch = Not (is_prefix)
        before = Less (token, token_row)
    """


def _rank_lines(values: str, who: str) -> str:
    """Statements for `rank` [B, N]: how many of `who` have a higher value, or the same and a lower index."""
    return f"""
        value_row = Unsqueeze ({values}, last)
        value_column = Unsqueeze ({values}, middle)
        higher = Greater (value_column, value_row)
        same = Equal (value_column, value_row)
        same_before = And (same, before)
        ahead = Or (higher, same_before)
        ahead_of_them = And (ahead, {who})
        ahead_number = Cast <to = 7> (ahead_of_them)
        rank = ReduceSum <keepdims = 0> (ahead_number, last)
    """


def _count_lines(who: str, relation: str, out: str) -> str:
    """Statements for `out` [B, N]: how many of `who` [B, N] stand in `relation` [N, N] to each token."""
    return f"""
        {out}_who = Unsqueeze ({who}, middle)
        {out}_pairs = And ({out}_who, {relation})
        {out}_number = Cast <to = 7> ({out}_pairs)
        {out} = ReduceSum <keepdims = 0> ({out}_number, last)
    """


def _nearest_lines(metric: str, column: str, *, eps: float, deterministic: bool) -> str:
    """Statements for `best` and `nearest` [B, N]: each token's most similar one in `column`, the lowest index first."""
    return f"""
        {cosine_lines(metric, metric, "similarity", eps=eps, deterministic=deterministic, engine=True)}
        candidate_sim = Where ({column}, similarity, similarity_lowest)
        best_row = ReduceMax <keepdims = 1> (candidate_sim, last)
        is_best = Equal (candidate_sim, best_row)
        is_candidate = And (is_best, {column})
        final = Sub (tokens, one)
        candidate = Where (is_candidate, token, final)
        nearest = ReduceMin <keepdims = 0> (candidate, last)
        best = Squeeze (best_row, last)
    """


def _index_lines(anchors: str) -> str:
    """Statements for the outputs `plan_map` and `index`, from `map_wide` [B, N] and who is the anchor of its slot."""
    return f"""
        map_shape = Shape (map_wide)
        total_scalar = Squeeze (total)
        slot = Range (zero_scalar, total_scalar, one_scalar)
        slot_row = Unsqueeze (slot, last)
        map_column = Unsqueeze (map_wide, middle)
        lands = Equal (map_column, slot_row)
        anchor_column = Unsqueeze ({anchors}, middle)
        is_anchor = And (lands, anchor_column)
        no_anchor = Constant <value = int64[1] {{-1}}> ()
        anchor_or_none = Where (is_anchor, token, no_anchor)
        index_wide = ReduceMax <keepdims = 0> (anchor_or_none, last)
        plan_map = Cast <to = 6> (map_wide)
        index = Cast <to = 6> (index_wide)
    """
