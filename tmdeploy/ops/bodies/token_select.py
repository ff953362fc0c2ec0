"""TokenSelect in standard ONNX ops."""

from __future__ import annotations

from tmdeploy.ops.bodies.text import cosine_lines, unordered_last_lines
from tmdeploy.ops.spec import SelectAttributes


def select_lines(given: SelectAttributes) -> str:
    """Statements for one set of attribute values; docs/ops.md says what they mean.

    TopK keeps the lower index first among equal values (ONNX TopK-11), which is rule 4 of docs/ops.md.
    """
    prefix, eps, deterministic = given.num_prefix, given.metric_eps, given.deterministic
    chosen_lines = {
        "score": "chosen = Identity (chosen_ranked)\n",
        "index": "chosen, chosen_where = TopK <axis = 1, largest = 0> (chosen_ranked, chosen_count)\n",
    }[given.order]
    if given.leftover == "drop":
        rest_lines = """
            rest_shape = Shape (rest)
            rest_slot = ConstantOfShape <value = int64[1] {-1}> (rest_shape)
            index_wide = Identity (anchors)
        """
    elif given.leftover == "fuse":
        rest_lines = """
            rest_shape = Shape (rest)
            rest_slot = Expand (stay, rest_shape)
            fused_count = Sub (total, stay)
            fused_shape = Concat <axis = 0> (batch, fused_count)
            fused = ConstantOfShape <value = int64[1] {-1}> (fused_shape)
            index_wide = Concat <axis = 1> (anchors, fused)
        """
    else:
        rest_lines = _nearest_lines(given.order, eps=eps, deterministic=deterministic)
    prefix_values = ", ".join(map(str, range(prefix)))
    anchor_lines = f"""
        prefix_row = Constant <value = int64[1, {prefix}] {{{prefix_values}}}> ()
        prefix_full = Concat <axis = 0> (batch, prefix_width)
        prefix = Expand (prefix_row, prefix_full)
        anchors = Concat <axis = 1> (prefix, chosen_token)
    """
    merges = given.leftover == "nearest"
    return f"""
        zero = Constant <value = int64[1] {{0}}> ()
        one = Constant <value = int64[1] {{1}}> ()
        end = Constant <value = int64[1] {{{2**62}}}> ()
        prefix_width = Constant <value = int64[1] {{{prefix}}}> ()
        batch = Shape <start = 0, end = 1> (score)
        tokens = Shape <start = 1, end = 2> (score)
        total = Shape (slots)
        stay = {"Shape (kept)" if given.leftover == "fuse" else "Identity (total)"}
        chosen_count = Sub (stay, prefix_width)

        # rank the patch tokens, the best first
        patches = Slice (score, prefix_width, end, one)
        patches_wide = Cast <to = 1> (patches)
        {unordered_last_lines("patches_wide", "ordered")}
        patch_count = Sub (tokens, prefix_width)
        ranked_score, ranked = TopK <axis = 1> (ordered, patch_count)
        chosen_ranked = Slice (ranked, zero, chosen_count, one)
        rest = Slice (ranked, chosen_count, end, one)
        {chosen_lines}
        chosen_token = Add (chosen, prefix_width)
        rest_token = Add (rest, prefix_width)
        {anchor_lines if prefix else "anchors = Identity (chosen_token)"}
        {rest_lines}
        # the permutation [slot anchors, the rest] gives the map
        zero_scalar = Squeeze (zero)
        one_scalar = Squeeze (one)
        stay_scalar = Squeeze (stay)
        slot_row = Range (zero_scalar, stay_scalar, one_scalar)
        slot_full = Concat <axis = 0> (batch, stay)
        slot_order = Expand (slot_row, slot_full)
        permutation = Concat <axis = 1> (anchors, rest_token)
        slot_of_each = Concat <axis = 1> (slot_order, rest_slot)
        full = Concat <axis = 0> (batch, tokens)
        blank = ConstantOfShape <value = int64[1] {{0}}> (full)
        map_wide = ScatterElements <axis = 1> (blank, permutation, slot_of_each)
        plan_map = Cast <to = 6> (map_wide)
        index = Cast <to = 6> (index_wide)
        ones = ConstantOfShape <value = float[1] {{1.0}}> (full)
        sim = {"ScatterElements <axis = 1> (ones, rest_token, best)" if merges else "Identity (ones)"}
        total_narrow = Cast <to = 6> (total)
        count = Expand (total_narrow, batch)
    """


def _nearest_lines(order: str, *, eps: float, deterministic: bool) -> str:
    # Ties go to the lower token index, so the candidates stand in index order whatever the slot order is.
    by_index = {
        "index": """
            candidate = Identity (chosen)
            slot_of_candidate = Identity (nearest)
        """,
        "score": """
            candidate, candidate_where = TopK <axis = 1, largest = 0> (chosen, chosen_count)
            slot_of_candidate = GatherElements <axis = 1> (candidate_where, nearest)
        """,
    }[order].strip()
    first, second = (line.strip() for line in by_index.splitlines())
    return f"""
        {first}
        metric_patches = Slice (metric, prefix_width, end, one)
        last = Constant <value = int64[1] {{-1}}> ()
        # one kept token leads the rows, so that no reduction is empty: ONNX Runtime gets the rank of those wrong
        before = Sub (chosen_count, one)
        padded = Slice (ranked, before, end, one)
        rest_rows = Unsqueeze (padded, last)
        candidate_rows = Unsqueeze (candidate, last)
        metric_rest = GatherND <batch_dims = 1> (metric_patches, rest_rows)
        metric_kept = GatherND <batch_dims = 1> (metric_patches, candidate_rows)
        {cosine_lines("metric_rest", "metric_kept", "similarity", eps=eps, deterministic=deterministic)}
        best_padded = ReduceMax <keepdims = 0> (similarity, last)
        nearest_padded = ArgMax <axis = -1, keepdims = 0, select_last_index = 0> (similarity)
        best = Slice (best_padded, one, end, one)
        nearest = Slice (nearest_padded, one, end, one)
        {second}
        rest_slot = Add (slot_of_candidate, prefix_width)
        index_wide = Identity (anchors)
    """
