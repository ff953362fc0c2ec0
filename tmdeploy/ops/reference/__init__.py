"""PyTorch reference of the op set, as `torch.library` custom ops. Importing this package imports torch."""

from tmdeploy.ops.reference.gradients import DIFFERENTIABLE
from tmdeploy.ops.reference.token_match import token_match
from tmdeploy.ops.reference.token_reduce import token_reduce
from tmdeploy.ops.reference.token_select import token_select

__all__ = ["DIFFERENTIABLE", "token_match", "token_reduce", "token_select"]
