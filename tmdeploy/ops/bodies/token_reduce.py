"""TokenReduce in standard ONNX ops."""

from __future__ import annotations

from tmdeploy.ops.spec import ReduceAttributes

_HEAD = """
    zero = Constant <value = int64[1] {0}> ()
    one = Constant <value = int64[1] {1}> ()
    last = Constant <value = int64[1] {-1}> ()
    middle = Constant <value = int64[1] {1}> ()
    zero_scalar = Squeeze (zero)
    one_scalar = Squeeze (one)
    none = Constant <value = float[1] {0.0}> ()
    tokens = Shape <start = 1, end = 2> (x)
    total = Shape <start = 1, end = 2> (index)
    tokens_scalar = Squeeze (tokens)
    total_scalar = Squeeze (total)
    map_wide = Cast <to = 7> (plan_map)
    index_wide = Cast <to = 7> (index)
    x_wide = Cast <to = 1> (x)
    anchored = GreaterOrEqual (index_wide, zero)
    anchor = Max (index_wide, zero)
    anchor_rows = Unsqueeze (anchor, last)
    x_anchor_raw = GatherND <batch_dims = 1> (x_wide, anchor_rows)
    weight_anchor_raw = GatherElements <axis = 1> (weight, anchor)
    weight_anchor = Where (anchored, weight_anchor_raw, none)

    # tokens that are not the anchor of their slot, the lowest index first
    slot_or_first = Max (map_wide, zero)
    anchor_of_token = GatherElements <axis = 1> (index_wide, slot_or_first)
    token_row = Range (zero_scalar, tokens_scalar, one_scalar)
    is_anchor = Equal (anchor_of_token, token_row)
    moved = Not (is_anchor)
    moved_number = Cast <to = 1> (moved)
    removed = Sub (tokens, total)
    capacity = Add (removed, one)
    source_flag, source = TopK <axis = 1> (moved_number, capacity)
    source_slot = GatherElements <axis = 1> (map_wide, source)
    source_slot_row = Unsqueeze (source_slot, middle)
    slot_row = Range (zero_scalar, total_scalar, one_scalar)
    slot_column = Unsqueeze (slot_row, last)
    lands = Equal (slot_column, source_slot_row)
    source_weight_raw = GatherElements <axis = 1> (weight, source)
    source_weight = Mul (source_weight_raw, source_flag)
    source_weight_row = Unsqueeze (source_weight, middle)
    assignment = Where (lands, source_weight_row, none)
    weight_moved = ReduceSum <keepdims = 0> (assignment, last)
    wsum = Add (weight_anchor, weight_moved)
"""

_WEIGHTED = """
    source_rows = Unsqueeze (source, last)
    x_source = GatherND <batch_dims = 1> (x_wide, source_rows)
    x_moved = MatMul (assignment, x_source)
"""

# every token of a slot counts once
_UNWEIGHTED = """
    source_rows = Unsqueeze (source, last)
    x_source = GatherND <batch_dims = 1> (x_wide, source_rows)
    source_flag_row = Unsqueeze (source_flag, middle)
    membership = Where (lands, source_flag_row, none)
    member = Greater (membership, none)
    present = Cast <to = 1> (anchored)
    present_column = Unsqueeze (present, last)
    anchored_column = Unsqueeze (anchored, last)
    x_anchor = Where (anchored_column, x_anchor_raw, none)
    members_moved = ReduceSum <keepdims = 1> (membership, last)
    members = Add (present_column, members_moved)
"""

_MEAN = f"""
    {_UNWEIGHTED}
    x_moved = MatMul (membership, x_source)
    x_sum = Add (x_anchor, x_moved)
    unit = Constant <value = float[1] {{1.0}}> ()
    members_or_one = Max (members, unit)
    mean = Div (x_sum, members_or_one)
"""

_LARGEST_NORM = """
    squares = ReduceSumSquare <keepdims = 0> (x_wide, last)
    norms = Sqrt (squares)
    norm_anchor_raw = GatherElements <axis = 1> (norms, anchor)
    norm_anchor = Where (anchored, norm_anchor_raw, none)
    norm_source = GatherElements <axis = 1> (norms, source)
    norm_source_row = Unsqueeze (norm_source, middle)
    norm_members = Where (member, norm_source_row, none)
    norm_moved = ReduceMax <keepdims = 0> (norm_members, last)
    largest = Max (norm_anchor, norm_moved)
"""

_RESCALE = """
    base_is_zero = Equal (base, none)
    base_or_one = Where (base_is_zero, unit, base)
    stretch = Div (largest, base_or_one)
    stretch_column = Unsqueeze (stretch, last)
    y_wide = Mul (mean, stretch_column)
"""

_TAILS = {
    "anchor": """
        anchored_column = Unsqueeze (anchored, last)
        y_wide = Where (anchored_column, x_anchor_raw, none)
    """,
    "sum": f"""
        {_WEIGHTED}
        weight_column = Unsqueeze (weight_anchor, last)
        x_weighted = Mul (x_anchor_raw, weight_column)
        y_wide = Add (x_weighted, x_moved)
    """,
    # where the weights sum to 0 the anchor stands alone: weight 1, divisor 1
    "wmean": f"""
        {_WEIGHTED}
        weightless = Equal (wsum, none)
        present = Cast <to = 1> (anchored)
        factor = Where (weightless, present, weight_anchor)
        unit = Constant <value = float[1] {{1.0}}> ()
        divisor = Where (weightless, unit, wsum)
        factor_column = Unsqueeze (factor, last)
        divisor_column = Unsqueeze (divisor, last)
        x_weighted = Mul (x_anchor_raw, factor_column)
        x_sum = Add (x_weighted, x_moved)
        y_wide = Div (x_sum, divisor_column)
    """,
    "mean": f"{_MEAN}\ny_wide = Identity (mean)",
    # [B, M, S, F] in memory, S the tokens that move: no method of this version uses it
    "max": f"""
        {_UNWEIGHTED}
        minus = Constant <value = float[1] {{-1.0}}> ()
        lowest = Div (minus, none)
        member_deep = Unsqueeze (member, last)
        x_deep = Unsqueeze (x_source, middle)
        candidates = Where (member_deep, x_deep, lowest)
        depth = Constant <value = int64[1] {{2}}> ()
        x_largest = ReduceMax <keepdims = 0> (candidates, depth)
        x_own = Where (anchored_column, x_anchor_raw, lowest)
        x_both = Max (x_own, x_largest)
        empty = Equal (members, none)
        y_wide = Where (empty, none, x_both)
    """,
    "mlerp": f"""
        {_MEAN}
        {_LARGEST_NORM}
        mean_squares = ReduceSumSquare <keepdims = 0> (mean, last)
        base = Sqrt (mean_squares)
        {_RESCALE}
    """,
    "mlerp_anchor": f"""
        {_MEAN}
        {_LARGEST_NORM}
        base = Identity (norm_anchor)
        {_RESCALE}
    """,
}


def reduce_lines(given: ReduceAttributes) -> str:
    """Statements for one mode; docs/ops.md says what it means.

    A slot's anchor is gathered; only the other tokens, of which a step has few, go through a one-hot MatMul. Their
    number is N - M + 1 where at most one slot lacks an anchor, which holds for every plan TokenMatch and TokenSelect
    make. Inputs are x, map, index, weight: exported models always pass a weight.
    """
    return f"{_HEAD}\n{_TAILS[given.mode]}\ny = CastLike (y_wide, x)"
