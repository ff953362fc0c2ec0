"""Token ops: the plan, and the three ops that make and apply it."""
