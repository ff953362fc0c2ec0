"""Whether a patched module computes what it computed before: every block it replaces, then the whole."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils import _pytree as pytree

from tmdeploy.errors import TmdeployError, UnsupportedModel
from tmdeploy.patching.attention import attend
from tmdeploy.patching.forward import Placement, given_besides, run_block
from tmdeploy.patching.structure import image_shape

# largest difference in units of the largest value: two orders of rounding play no part, another function does
_TOLERANCE = {torch.float64: 1e-6, torch.float32: 1e-4, torch.float16: 3e-2, torch.bfloat16: 1e-1}
_GPU = 10  # times that: kernels for the same product may round to TF32
_WHOLE = 10  # times that, of the whole model: what the blocks add up to
_STAYS = "The module stays as it was; for such a model call the ops directly (docs/guide/own-module.md)"


@dataclass
class Observed:
    """What one forward of the module as it is showed.

    Attributes:
        output: Whatever it returned.
        tokens: Tokens that enter block 0.
        placements: Where each block normalises.
    """

    output: object = None
    tokens: int = 0
    placements: list[Placement] = field(default_factory=list)


def example_for(module: nn.Module, check: bool | Tensor) -> Tensor:
    """The input that the check runs on: the one given, else one random image of the module's size.

    Raises:
        UnsupportedModel: The weights are not there yet, or the module does not say what it takes.
    """
    parameter = next((p for p in module.parameters() if p.is_floating_point()), torch.empty(0))
    if any(value.is_meta for value in (*module.parameters(), *module.buffers())):
        raise UnsupportedModel(
            f"{type(module).__name__} cannot be checked: its weights are on the meta device",
            remedy="Load them first, or leave the check out with check=False",
        )
    if isinstance(check, Tensor):
        return check
    shape = image_shape(module)
    if shape is None:
        raise UnsupportedModel(
            f"{type(module).__name__} does not say what images it takes",
            remedy="Pass some as check=images, or leave the check out with check=False",
        )
    noise = torch.randn(1, *shape, generator=torch.Generator().manual_seed(0))
    return noise.to(parameter.device, parameter.dtype)


def observe(module: nn.Module, blocks: Sequence[nn.Module], images: Tensor) -> Observed:
    """Run the module as it is, and every block beside what a patched block would run on the same tokens.

    Raises:
        UnsupportedModel: A block computes something else; it is named, with what differs. Or the module does not run.
    """
    seen = Observed()
    with contextlib.ExitStack() as stack:
        for number, block in enumerate(blocks):
            stack.enter_context(_Watch(number, block, seen))
        seen.output = run_quietly(module, images, "its own forward fails on one random image")
    if len(seen.placements) != len(blocks):
        raise UnsupportedModel(
            f"the forward of {type(module).__name__} does not call blocks.{len(seen.placements)}", remedy=_STAYS
        )
    return seen


def compare(module: nn.Module, before: object, after: object) -> None:
    """Raise UnsupportedModel unless two outputs of the module, nothing removed, are the same."""
    ours, theirs = ([leaf for leaf in pytree.tree_leaves(out) if isinstance(leaf, Tensor)] for out in (after, before))
    if [leaf.shape for leaf in ours] != [leaf.shape for leaf in theirs]:
        raise UnsupportedModel(f"{type(module).__name__} returns other shapes with nothing removed", remedy=_STAYS)
    worst = max((_difference(a, b) for a, b in zip(ours, theirs, strict=True)), default=0.0)
    if worst > _WHOLE:
        raise UnsupportedModel(
            f"{type(module).__name__} computes something else when patched, with nothing removed, though its blocks do "
            "not: it does more with its tokens than run the blocks and pool",
            remedy=_STAYS,
        )


def run_quietly(module: nn.Module, images: Tensor, failure: str) -> object:
    """The output in eval mode, without gradients, with the random state and every mode as they were before.

    Raises:
        UnsupportedModel: The forward raises; `failure` says at what.
    """
    devices = [images.device] if images.device.type == "cuda" else []
    try:
        with _eval(module), torch.random.fork_rng(devices), torch.no_grad():
            torch.manual_seed(0)
            return module(images)
    except TmdeployError:
        raise
    except Exception as error:
        first = (str(error).strip().splitlines() or [""])[0]
        raise UnsupportedModel(
            f"{type(module).__name__}: {failure} ({type(error).__name__}: {first})",
            remedy="Pass images that it takes as check=images, or leave the check out with check=False",
        ) from error


class _Watch:
    """Hooks on one block, its attention and its MLP, for one forward."""

    def __init__(self, number: int, block: nn.Module, seen: Observed) -> None:
        self._number, self._block, self._seen = number, block, seen
        self._attn, self._mlp = block.get_submodule("attn"), block.get_submodule("mlp")
        self._attended: list[tuple[Tensor, Tensor]] = []
        self._into_mlp: list[Tensor] = []
        self._handles: list[Any] = []

    def __enter__(self) -> None:
        self._handles = [
            self._block.register_forward_hook(self._after_block, with_kwargs=True),
            self._attn.register_forward_hook(self._after_attention, with_kwargs=True),
            self._mlp.register_forward_pre_hook(lambda _, args: self._into_mlp.append(args[0])),
        ]

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _after_attention(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: object) -> None:
        given = given_besides(args[1:], kwargs)
        if given:
            self._refuse(f"gives its attention {', '.join(given)} besides the tokens")
        if not args:
            self._refuse("does not give its attention the tokens as the first argument")
        if not isinstance(out, Tensor):
            self._refuse(f"its attention returns a {type(out).__name__}")
        assert isinstance(out, Tensor)  # noqa: S101 - just looked at
        self._attended.append((args[0], out))

    def _after_block(self, _: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any], out: object) -> None:
        given = given_besides(args[1:], kwargs)
        if given:
            self._refuse(f"is given {', '.join(given)} besides its tokens")
        if len(self._seen.placements) != self._number:
            self._refuse("is called twice, or out of turn")
        if not args:
            self._refuse("is not given its tokens as the first argument")
        if not isinstance(out, Tensor):
            self._refuse(f"returns a {type(out).__name__}")
        assert isinstance(out, Tensor)  # noqa: S101 - just looked at
        x: Tensor = args[0]
        if x.dim() != 3:
            self._refuse(f"takes tokens of {x.dim()} dimensions, not [batch, tokens, channels]")
        if len(self._attended) != 1 or len(self._into_mlp) != 1:
            self._refuse("does not call its attn and its mlp once each")
        if self._number == 0:
            self._seen.tokens = x.shape[1]
        try:
            self._compare(x, out)
        except TmdeployError:
            raise
        except Exception as error:
            self._refuse(f"cannot be run as timm's blocks are ({type(error).__name__}: {error})")

    def _compare(self, x: Tensor, out: Tensor) -> None:
        into, attended = self._attended[0]
        norm1 = self._block.get_submodule("norm1")
        placement: Placement
        if into.shape == x.shape and torch.equal(into, x):
            placement = "res_post"
        elif _difference(norm1(x), into) <= 1.0:
            placement = "pre"
        else:
            self._refuse("does not attend to its tokens, or to norm1 of them")
        ours = attend(self._attn, into, size=None)[0]
        if _difference(ours, attended) > 1.0:
            self._refuse(
                f"its attention ({type(self._attn).__name__}) is no plain softmax attention over qkv"
                f"{_gap(ours, attended)}"
            )
        again = run_block(self._block, x, placement)
        if _difference(self._into_mlp[1], self._into_mlp[0]) > 1.0:
            self._refuse("gives its mlp something else than the tokens after attention")
        scale = float((out - x).abs().max()) * _tolerance(x) + 8 * torch.finfo(x.dtype).eps * float(x.abs().max())
        if float((again - out).abs().max()) > scale:
            self._refuse("computes something else than x + attn(norm1(x)), then x + mlp(norm2(x))" + _gap(again, out))
        self._seen.placements.append(placement)

    def _refuse(self, reason: str) -> None:
        raise UnsupportedModel(f"blocks.{self._number} ({type(self._block).__name__}) {reason}", remedy=_STAYS)


@contextlib.contextmanager
def _eval(module: nn.Module) -> Iterator[None]:
    """Every part in eval mode, whatever its own `train` does; then each as it was."""
    modes = [(part, part.training) for part in module.modules()]
    try:
        for part, _ in modes:
            part.training = False
        yield
    finally:
        for part, mode in modes:
            part.training = mode


def _difference(a: Tensor, b: Tensor) -> float:
    """Largest difference, in units of what rounding may make of it; infinite for what cannot be compared."""
    if a.shape != b.shape:
        return float("inf")
    if not b.is_floating_point():
        return 0.0 if torch.equal(a, b) else float("inf")
    gap = (a.double() - b.double()).abs()
    same = (a == b) | (a.isnan() & b.isnan())
    worst = float(gap.masked_fill(same, 0.0).nan_to_num(nan=float("inf")).max()) if gap.numel() else 0.0
    finite = b.double().abs()
    largest = float(finite[finite.isfinite()].max()) if bool(finite.isfinite().any()) else 0.0
    return 0.0 if worst == 0.0 else worst / (_tolerance(b) * largest) if largest else float("inf")


def _tolerance(x: Tensor) -> float:
    return _TOLERANCE.get(x.dtype, 1e-3) * (1 if x.device.type == "cpu" else _GPU)


def _gap(ours: Tensor, theirs: Tensor) -> str:
    if ours.shape != theirs.shape:
        return f": {list(theirs.shape)}, not {list(ours.shape)}"
    return f": off by {float((ours - theirs).abs().max()):.2g} at values up to {float(theirs.abs().max()):.2g}"
