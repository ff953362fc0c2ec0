"""`patch(module, method)`: make a timm-style ViT reduce its tokens, in place."""

from __future__ import annotations

import importlib.util
import types
from collections.abc import Mapping, Sequence
from typing import TypeVar

from torch import Tensor, nn

from tmdeploy.card.recipe import Recipe, make_recipe
from tmdeploy.errors import UnsupportedModel, UsageError
from tmdeploy.methods import build_method
from tmdeploy.methods.spec import CustomSignal, Select
from tmdeploy.models.checkpoint import LoadedCheckpoint, build_model
from tmdeploy.models.vit import VisionTransformer
from tmdeploy.patching.check import compare, example_for, observe, run_quietly
from tmdeploy.patching.forward import Place, Placement, reducing_forward, sized_pool
from tmdeploy.patching.parts import load_parts, make_signals, parts_of
from tmdeploy.patching.reduction import KEY, Reduction, reduction_of
from tmdeploy.patching.structure import check_module, find_blocks, patches_of, placement_of, prefix_of

ModuleT = TypeVar("ModuleT", bound=nn.Module)


def patch(
    module: ModuleT,
    method: str | Recipe,
    *,
    r: str | int | Sequence[int] | None = None,
    keep: str | float | Sequence[float] | None = None,
    layers: str | Sequence[int] | None = None,
    options: Mapping[str, str | int | float | bool] | None = None,
    deterministic: bool = True,
    check: bool | Tensor = True,
) -> ModuleT:
    """Make a timm-style ViT reduce its tokens.

    The blocks' `forward` is replaced on the instances: parameters, buffers and their names stay as they are, so
    checkpoints load and save as before. Patching again replaces the earlier patch. A method that learns adds its own
    modules, to be trained or loaded with the model's weights; one that is there under its name is taken over.

        model = tmdeploy.patch(timm.create_model("deit_small_patch16_224"), "tome", r=13)

    The module must compute what it computed before when nothing is removed. That is checked: it runs once as it is,
    with every block beside what replaces it, once patched with nothing removed, and once with the schedule; one image
    each, in eval mode, without gradients. Parts and arguments that a patched block would leave out are refused without
    running anything.

    Args:
        module: Has `blocks` (each with norm1, attn, norm2, mlp), `num_prefix_tokens`, and a forward that runs the
            blocks one after the other.
        method: Registered name, or a whole recipe (then leave the rest out).
        r: As `--r`: 13, "26:0", [8, 8, 4].
        keep: As `--keep`: 0.7, [0.9, 0.8, 0.7], [138, 97, 68]; 1.0 is all, the integer 1 one token.
        layers: Blocks with a reduction step.
        options: Named options of the method.
        deterministic: Planners accumulate in float64.
        check: Images to check on, as the module takes them; True: one random image; False: do not run the module.

    Returns:
        The same module.

    Raises:
        UnsupportedModel: The module lacks that structure, or would compute something else. It stays as it was.
        UsageError: Unknown method or option, or an impossible schedule.
    """
    check_module(module)
    blocks = find_blocks(module, method.spec if isinstance(method, Recipe) else build_method(method, options))
    before = _Before(module, blocks)
    earlier = parts_of(module)
    try:
        unpatch(module)
        placements = [placement_of(block) or "pre" for block in blocks]
        images = output = None
        tokens = None
        if check is not False:
            images = example_for(module, check)
            seen = observe(module, blocks, images)
            placements, tokens, output = seen.placements, seen.tokens, seen.output
        recipe = _recipe(
            module, method, len(blocks), tokens, r=r, keep=keep, layers=layers, options=options, check=check
        )
        state = attach(module, recipe, placements, deterministic=deterministic, parts=earlier)
        if images is not None:
            assert tokens is not None  # noqa: S101 - observed
            _check_patched(module, state, images, output, tokens)
    except BaseException:
        before.restore()
        raise
    if importlib.util.find_spec("onnxscript") is not None:
        importlib.import_module("tmdeploy.ops.translations")  # torch.onnx.export knows the op set from here on
    return module


def attach(
    module: nn.Module,
    recipe: Recipe,
    placements: Sequence[Placement] | None = None,
    *,
    deterministic: bool = True,
    parts: Mapping[str, nn.Module] | None = None,
) -> Reduction:
    """`patch` for a module that is known to be right, such as our own: nothing is run.

    Args:
        module: See `patch`.
        recipe: Method and schedule.
        placements: Where each block normalises; None takes what the blocks say.
        deterministic: Planners accumulate in float64.
        parts: Parts of an earlier patch to take over; None takes the present ones.

    Raises:
        UnsupportedModel: The method needs a class token, or a part that cannot be made, or the module pools in a way
            that cannot be reached.
        UsageError: The recipe names blocks that the module does not have.
    """
    blocks = find_blocks(module, recipe.spec)
    beyond = [layer for layer in recipe.layers if layer >= len(blocks)]
    if beyond:
        raise UsageError(f"the recipe reduces in block {beyond[0]}; the module has {len(blocks)} blocks")
    has_class_token = getattr(module, "cls_token", None) is not None
    planner = recipe.spec.planner
    if isinstance(planner, Select) and planner.score.needs_class_token and not has_class_token:
        score = planner.score.compute if isinstance(planner.score, CustomSignal) else f"score={planner.score.value}"
        raise UnsupportedModel(
            f"method '{recipe.method}' scores tokens by the class token's attention ({score}), and the model has no "
            "class token",
            remedy="Choose another score, score=received (attention received from the patch tokens) or score=key_norm, "
            "with -O or options=, or a similarity-driven method such as tome",
        )
    compute, added = make_signals(module, recipe, prefix_of(module), parts_of(module) if parts is None else parts)
    unpatch(module)
    if placements is None:
        placements = [placement_of(block) or "pre" for block in blocks]
    state = Reduction(
        recipe,
        num_prefix=prefix_of(module),
        has_class_token=has_class_token,
        deterministic=deterministic,
        compute=compute,
        parts=added,
    )
    pool = _pooling(module, state)
    state.replace(module, KEY, state)
    for number, (block, placement) in enumerate(zip(blocks, placements, strict=True)):
        state.replace(block, KEY, Place(state, number, placement))
        state.replace(block, "forward", types.MethodType(reducing_forward, block))
    if pool is not None:
        state.replace(module, "pool", pool)
    state.insert(module)
    return state


def patched_model(loaded: LoadedCheckpoint, recipe: Recipe, *, deterministic: bool = True) -> VisionTransformer:
    """The model of a checkpoint with its weights, patched, in eval mode.

    Args:
        loaded: Read with the recipe's method, whose own weights are among its `parts`.
        recipe: Method and schedule.
        deterministic: Planners accumulate in float64.

    Raises:
        CheckpointError: Weights of the model or of the method are missing, unexpected, mis-shaped or not finite.
        UnsupportedModel: As `attach`.
        UsageError: As `attach`.
    """
    module = build_model(loaded)
    load_parts(attach(module, recipe, deterministic=deterministic), loaded)
    return module


def unpatch(module: ModuleT) -> ModuleT:
    """Undo `patch`; harmless on a module that was never patched."""
    if KEY in module.__dict__:
        reduction_of(module).put_back()
    return module


class _Before:
    """How a module was, an earlier patch included."""

    def __init__(self, module: nn.Module, blocks: Sequence[nn.Module]) -> None:
        self._kept = [(part, {name: part.__dict__[name] for name in self._names(part)}) for part in (module, *blocks)]
        state = module.__dict__.get(KEY)
        self._children = [(part, dict(part._modules)) for part in module.modules()]
        self._state, self._replaced = state, list(state.replaced) if isinstance(state, Reduction) else []

    def restore(self) -> None:
        for part, attributes in self._kept:
            for name in self._names(part):
                del part.__dict__[name]
            part.__dict__.update(attributes)
        for part, children in self._children:
            part._modules = children
        if isinstance(self._state, Reduction):
            self._state.replaced = self._replaced

    @staticmethod
    def _names(part: nn.Module) -> list[str]:
        return [name for name in (KEY, "forward", "pool") if name in part.__dict__]


def _recipe(
    module: nn.Module,
    method: str | Recipe,
    depth: int,
    seen: int | None,
    *,
    r: str | int | Sequence[int] | None,
    keep: str | float | Sequence[float] | None,
    layers: str | Sequence[int] | None,
    options: Mapping[str, str | int | float | bool] | None,
    check: bool | Tensor,
) -> Recipe:
    prefix, patches = prefix_of(module), patches_of(module)
    kind = type(module).__name__
    if seen is not None and check is True and patches is not None and seen != prefix + patches:
        raise UnsupportedModel(
            f"{kind} says {patches} patches and {prefix} prefix tokens, but {seen} tokens enter its blocks",
            remedy="Set num_prefix_tokens on the module to the tokens that are no patches, which come first",
        )
    if isinstance(method, Recipe):
        return method
    tokens = seen if seen is not None else None if patches is None else prefix + patches
    if tokens is None:
        raise UnsupportedModel(
            f"{kind} does not say how many patches it has",
            remedy="Leave the check on, give patch_embed an integer num_patches, or pass a Recipe",
        )
    return make_recipe(
        method, depth=depth, tokens=tokens, prefix=prefix, r=r, keep=keep, layers=layers, options=options
    )


def _check_patched(module: nn.Module, state: Reduction, images: Tensor, output: object, tokens: int) -> None:
    amounts = state.recipe.amounts
    state.set_schedule([0 if state.spec.schedule_kind == "r" else tokens] * len(amounts))
    compare(module, output, run_quietly(module, images, "patched, it fails with nothing removed"))
    state.set_schedule(amounts)
    if amounts:
        run_quietly(module, images, "its forward cannot go on with fewer tokens")
    state.begin()


def _pooling(module: nn.Module, state: Reduction) -> types.MethodType | None:
    """Mean pooling must weigh merged tokens by their size (ToMe's MAE patch)."""
    kind = getattr(module, "global_pool", "token")
    if not (state.spec.tracks_size and state.spec.pool_by_size) or kind not in {"avg", "avgmax"}:
        return None
    original = getattr(module, "pool", None)
    if original is None:
        raise UnsupportedModel(
            f"{type(module).__name__} pools the mean of its tokens in a way patch() cannot reach",
            remedy="Give the module a method pool(x), as timm's VisionTransformer has",
        )
    start = 0 if getattr(module, "pool_include_prefix", False) else state.num_prefix
    return types.MethodType(sized_pool(state, start=start, default=kind, original=original), module)
