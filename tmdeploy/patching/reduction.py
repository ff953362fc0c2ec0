"""The state of a patched module: its method, its schedule, and the sizes of the current forward pass."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from tmdeploy.card.recipe import Recipe
from tmdeploy.card.schedule import kept_count, merged_count
from tmdeploy.errors import UnsupportedModel, UsageError
from tmdeploy.methods.spec import CustomSignal, MethodSpec, Select
from tmdeploy.models.describe import REDUCTION
from tmdeploy.patching.signals import Attention, Compute, Signals, own_signals
from tmdeploy.patching.step import Counts, StepTensors, reduction_step

KEY = REDUCTION


class Reduction:
    """What a module was patched with, and its state during a forward pass.

    Attributes:
        recipe: Method and schedule.
        spec: The method's spec.
        num_prefix: Prefix tokens.
        has_class_token: Whether the first of them is a class token.
        deterministic: Planners accumulate in float64.
        amounts: r or keep by block; assign another mapping to change it (ToMe's `model.r = 8`).
        counts: Instead of amounts: tensors whose lengths are the counts, by block. The exporter's way in.
        record: Collect `steps`.
        steps: Steps of the last forward pass, in block order, if `record`.
        size: float32 [B, N], sizes after the last step of the last forward pass; None without any.
        compute: What computes the method's own signals, by block.
        parts: Modules that the method added, by their names in the module; they are in `compute`, too.
        replaced: Attributes of the module and its blocks that the patch took the place of: what was there, or nothing.
    """

    def __init__(
        self,
        recipe: Recipe,
        *,
        num_prefix: int,
        has_class_token: bool,
        deterministic: bool = True,
        compute: Mapping[int, Mapping[CustomSignal, Compute]] | None = None,
        parts: Mapping[str, nn.Module] | None = None,
    ) -> None:
        self.recipe = recipe
        self.spec: MethodSpec = recipe.spec
        self.num_prefix = num_prefix
        self.has_class_token = has_class_token
        self.deterministic = deterministic
        self.amounts: Mapping[int, int] = dict(zip(recipe.layers, recipe.amounts, strict=True))
        self.counts: Mapping[int, Counts] | None = None
        self.record = False
        self.steps: list[StepTensors] = []
        self.size: Tensor | None = None
        self.compute, self.parts = compute or {}, parts or {}
        self.replaced: list[tuple[nn.Module, str, list[object]]] = []

    def replace(self, owner: nn.Module, name: str, value: object) -> None:
        """Set an attribute of the instance, past nn.Module's registries, and remember what was there."""
        self.replaced.append((owner, name, [owner.__dict__[name]] if name in owner.__dict__ else []))
        object.__setattr__(owner, name, value)

    def insert(self, module: nn.Module) -> None:
        """Put the method's parts into the module, under their names, and remember what was there."""
        for path, part in self.parts.items():
            owner = module
            *containers, name = path.split(".")
            for container in containers:
                if container not in owner._modules:
                    self._register(owner, container, nn.Module())
                owner = owner.get_submodule(container)
            self._register(owner, name, part)

    def put_back(self) -> None:
        """Undo every `replace` and `insert`."""
        for owner, name, before in reversed(self.replaced):
            table = owner._modules if name in owner._modules else owner.__dict__
            table.pop(name, None)
            table.update((name, value) for value in before)  # type: ignore[misc]
        self.replaced = []

    def _register(self, owner: nn.Module, name: str, part: nn.Module) -> None:
        self.replaced.append((owner, name, [owner._modules[name]] if name in owner._modules else []))
        owner._modules[name] = part

    def begin(self) -> None:
        """Forget the last forward pass."""
        self.size = None
        self.steps = []

    def set_schedule(self, amounts: Sequence[int]) -> None:
        """Replace r or keep of every step.

        Raises:
            UsageError: Not one amount per step.
        """
        layers = self.recipe.layers
        if len(amounts) != len(layers):
            raise UsageError(f"{len(amounts)} amounts for {len(layers)} reduction steps")
        self.amounts = dict(zip(layers, amounts, strict=True))

    def step(self, block: int, x: Tensor, signals: Signals, attention: Attention) -> Tensor:
        """Apply the reduction step of `block` to x [B, N, D]."""
        planner = self.spec.planner
        assert planner is not None  # noqa: S101 - the caller has no step without one
        signals = own_signals(planner, signals, self.compute.get(block, {}), x, attention)
        counts = self.counts[block] if self.counts is not None else self._counts(x, self.amounts[block])
        result = reduction_step(
            self.spec,
            block,
            x,
            signals,
            self.size,
            counts,
            num_prefix=self.num_prefix,
            has_class_token=self.has_class_token,
            deterministic=self.deterministic,
        )
        self.size = result.size_out
        if self.record:
            self.steps.append(result)
        return result.x_out

    def _counts(self, x: Tensor, amount: int) -> Counts:
        tokens, prefix = x.shape[1], self.num_prefix
        if not isinstance(self.spec.planner, Select):
            return Counts(torch.arange(merged_count(tokens, prefix, amount), device=x.device))
        stay = kept_count(tokens, prefix, amount)
        if not self.spec.fuses:
            return Counts(torch.arange(stay, device=x.device))
        return Counts(torch.arange(stay + (stay < tokens), device=x.device), torch.arange(stay, device=x.device))


def reduction_of(module: nn.Module) -> Reduction:
    """The state of a patched module.

    Raises:
        UnsupportedModel: It was never patched.
    """
    state = module.__dict__.get(KEY)
    if not isinstance(state, Reduction):
        raise UnsupportedModel("the module is not patched", remedy="Call tmdeploy.patch(module, method) first")
    return state
