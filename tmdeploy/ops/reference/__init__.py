"""PyTorch reference of the op set, as `torch.library` custom ops. Importing this package imports torch."""

import tmdeploy.ops.reference.gradients as _gradients  # registers them
from tmdeploy.ops.reference.token_match import token_match
from tmdeploy.ops.reference.token_reduce import token_reduce
from tmdeploy.ops.reference.token_select import token_select

DIFFERENTIABLE = _gradients.DIFFERENTIABLE

__all__ = ["DIFFERENTIABLE", "token_match", "token_reduce", "token_select"]
