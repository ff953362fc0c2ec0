"""TokenMatch in standard ONNX ops."""

from __future__ import annotations

from tmdeploy.ops.bodies.text import cosine_lines
from tmdeploy.ops.spec import MatchAttributes


def match_lines(given: MatchAttributes) -> str:
    """Statements for one set of attribute values; docs/ops.md says what they mean.

    TopK keeps the lower index first among equal values (ONNX TopK-11), which is rule 4 of docs/ops.md. The plan is
    written as the permutation [slot anchors, merged tokens], scattered without a reduction.
    """
    prefix, eps, deterministic = given.num_prefix, given.metric_eps, given.deterministic
    first_a, first_b = prefix + prefix % 2, prefix + 1 - prefix % 2
    if given.order == "tome":
        kept_lines = "kept_value, kept_where = TopK <axis = 1, largest = 0> (kept_ranked, kept_count)\n"
        kept_name = "kept_value"
    else:
        kept_lines, kept_name = "", "kept_ranked"
    prefix_values = ", ".join(map(str, range(prefix)))
    prefix_lines = f"""
        prefix_row = Constant <value = int64[1, {prefix}] {{{prefix_values}}}> ()
        prefix_shape = Constant <value = int64[1] {{{prefix}}}> ()
        prefix_full = Concat <axis = 0> (batch, prefix_shape)
        prefix = Expand (prefix_row, prefix_full)
        order_of_slots = Concat <axis = 1> (prefix, kept_token, targets)
    """
    return f"""
        prefix_width = Constant <value = int64[1] {{{prefix}}}> ()
        zero = Constant <value = int64[1] {{0}}> ()
        one = Constant <value = int64[1] {{1}}> ()
        two = Constant <value = int64[1] {{2}}> ()
        end = Constant <value = int64[1] {{{2**62}}}> ()
        last = Constant <value = int64[1] {{-1}}> ()
        begin_a = Constant <value = int64[1] {{{first_a}}}> ()
        begin_b = Constant <value = int64[1] {{{first_b}}}> ()
        batch = Shape <start = 0, end = 1> (metric)
        tokens = Shape <start = 1, end = 2> (metric)
        total = Shape (slots)
        removed = Sub (tokens, total)

        # every A token's most similar B token
        {_best_lines(prefix, eps=eps, deterministic=deterministic)}
        # the best proposals merge
        count_a = Shape <start = 1, end = 2> (best)
        kept_count = Sub (count_a, removed)
        ranked_sim, ranked = TopK <axis = 1> (best, count_a)
        source = Slice (ranked, zero, removed, one)
        source_sim = Slice (ranked_sim, zero, removed, one)
        kept_ranked = Slice (ranked, removed, end, one)
        {kept_lines}
        # slots: prefix, kept A, all B
        kept_twice = Mul ({kept_name}, two)
        kept_token = Add (kept_twice, begin_a)
        source_twice = Mul (source, two)
        source_token = Add (source_twice, begin_a)
        begin_b_scalar = Squeeze (begin_b)
        tokens_scalar = Squeeze (tokens)
        two_scalar = Squeeze (two)
        one_scalar = Squeeze (one)
        zero_scalar = Squeeze (zero)
        target_row = Range (begin_b_scalar, tokens_scalar, two_scalar)
        target_count = Shape (target_row)
        target_full = Concat <axis = 0> (batch, target_count)
        targets = Expand (target_row, target_full)
        {prefix_lines if prefix else "order_of_slots = Concat <axis = 1> (kept_token, targets)"}
        first_target = Add (kept_count, prefix_width)
        destination_index = GatherElements <axis = 1> (destination, source)
        destination_slot = Add (destination_index, first_target)
        total_scalar = Squeeze (total)
        slot_row = Range (zero_scalar, total_scalar, one_scalar)
        slot_full = Concat <axis = 0> (batch, total)
        slot_order = Expand (slot_row, slot_full)

        # the permutation [slot anchors, merged tokens] gives the map
        permutation = Concat <axis = 1> (order_of_slots, source_token)
        slot_of_each = Concat <axis = 1> (slot_order, destination_slot)
        full = Concat <axis = 0> (batch, tokens)
        blank = ConstantOfShape <value = int64[1] {{0}}> (full)
        planned = ScatterElements <axis = 1> (blank, permutation, slot_of_each)
        ones = ConstantOfShape <value = float[1] {{1.0}}> (full)
        sim = ScatterElements <axis = 1> (ones, source_token, source_sim)

        # r = 0 is the identity
        nothing = Equal (removed, zero)
        token_row = Range (zero_scalar, tokens_scalar, one_scalar)
        map_wide = Where (nothing, token_row, planned)
        index_wide = Where (nothing, slot_row, order_of_slots)
        plan_map = Cast <to = 6> (map_wide)
        index = Cast <to = 6> (index_wide)
    """


def _best_lines(prefix: int, *, eps: float, deterministic: bool) -> str:
    """Statements for `best` and `destination`, [B, Na], of every A token.

    With a single patch token left, one half is empty, and ONNX Runtime gets the rank of empty reductions wrong. So no
    half ever is: A takes the last prefix token along, whose row is cut off; or B takes a dummy, whose column is masked.
    """
    reduce_lines = """
        {best} = ReduceMax <keepdims = 0> (similarity, last)
        {destination} = ArgMax <axis = -1, keepdims = 0, select_last_index = 0> (similarity)
    """
    if prefix % 2 == 1:  # the first patch token is in B, the last prefix token in A
        return f"""
            begin_padded = Constant <value = int64[1] {{{prefix - 1}}}> ()
            half_a = Slice (metric, begin_padded, end, one, two)
            half_b = Slice (metric, begin_b, end, one, two)
            {cosine_lines("half_a", "half_b", "similarity", eps=eps, deterministic=deterministic)}
            {reduce_lines.format(best="best_padded", destination="destination_padded")}
            best = Slice (best_padded, one, end, one)
            destination = Slice (destination_padded, one, end, one)
        """
    return f"""
        half_a = Slice (metric, begin_a, end, one, two)
        half_b_real = Slice (metric, begin_b, end, one, two)
        after_a = Add (begin_a, one)
        dummy = Slice (metric, begin_a, after_a, one)
        half_b = Concat <axis = 1> (half_b_real, dummy)
        {cosine_lines("half_a", "half_b", "similarity_padded", eps=eps, deterministic=deterministic)}
        count_padded = Shape <start = 1, end = 2> (half_b)
        count_b = Sub (count_padded, one)
        padded_scalar = Squeeze (count_padded)
        start_scalar = Squeeze (zero)
        step_scalar = Squeeze (one)
        column = Range (start_scalar, padded_scalar, step_scalar)
        is_dummy = Equal (column, count_b)
        similarity = Where (is_dummy, similarity_padded_lowest, similarity_padded)
        {reduce_lines.format(best="best", destination="destination")}
    """
