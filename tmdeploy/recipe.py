"""A recipe: which method, with which options, reduces how many tokens in which blocks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence

from pydantic import BaseModel, ConfigDict, model_validator

from tmdeploy.errors import UsageError
from tmdeploy.methods import MethodSpec, build_method
from tmdeploy.schedule import Step, check_r, merged_count, parse_keep, parse_layers, parse_r, select_count


class Recipe(BaseModel):
    """A method and its schedule, resolved for one model; JSON in checkpoints and artifacts.

    Attributes:
        method: Registered name.
        options: Named options of the method.
        layers: Blocks with a reduction step, 0-based, ascending.
        amounts: r or keep of each step, one a layer.
    """

    model_config = ConfigDict(frozen=True, extra="forbid")

    method: str
    options: dict[str, str | int | float | bool] = {}
    layers: tuple[int, ...] = ()
    amounts: tuple[int, ...] = ()

    @model_validator(mode="after")
    def _one_amount_a_layer(self) -> Recipe:
        if len(self.amounts) != len(self.layers):
            raise ValueError(f"{len(self.amounts)} amounts for {len(self.layers)} layers")
        return self

    @property
    def spec(self) -> MethodSpec:
        """The method's spec with these options."""
        return build_method(self.method, self.options)

    def steps(self, tokens: int, prefix: int, amounts: Sequence[int] | None = None) -> tuple[Step, ...]:
        """Follow the token count through the model.

        Args:
            tokens: Tokens that enter block 0, prefix included.
            prefix: Prefix tokens.
            amounts: Instead of the recipe's own.

        Raises:
            UsageError: Not one amount a step, or a negative one.
        """
        spec = self.spec
        chosen = self.amounts if amounts is None else tuple(amounts)
        if len(chosen) != len(self.layers):
            raise UsageError(
                f"{len(chosen)} amounts for {len(self.layers)} reduction steps",
                remedy="Give one value for all steps, or one a step",
            )
        steps = []
        for block, amount in zip(self.layers, chosen, strict=True):
            if amount < 0:
                raise UsageError(f"{spec.schedule_kind} is {amount} in block {block}; it cannot be negative")
            if spec.schedule_kind == "r":
                after = merged_count(tokens, prefix, amount)
            else:
                after = select_count(tokens, prefix, amount, fuse=spec.fuses)
            steps.append(Step(block, tokens, after, amount))
            tokens = after
        return tuple(steps)


def make_recipe(
    method: str,
    *,
    depth: int,
    tokens: int,
    prefix: int,
    r: str | int | Sequence[int] | None = None,
    keep: str | float | Sequence[float] | None = None,
    layers: str | Sequence[int] | None = None,
    options: Mapping[str, str | int | float | bool] | None = None,
) -> Recipe:
    """Resolve what a user typed (`--method`, `--r`, `--keep`, `--layers`, options) or passed in Python for one model.

    Args:
        method: Registered name.
        depth: Blocks of the model.
        tokens: Tokens that enter block 0, prefix included.
        prefix: Prefix tokens.
        r: As `schedule.parse_r`, or numbers: 13, [8, 8, 4]; None takes the method's default.
        keep: As `schedule.parse_keep`, or numbers: 0.7, [138, 97, 68]; None takes the method's default.
        layers: As `schedule.parse_layers`, or numbers; None takes the method's default.
        options: Named options of the method.

    Raises:
        UsageError: An option that the method does not have, or a schedule that is not possible.
    """
    spec = build_method(method, options)
    kind = spec.schedule_kind
    r, keep, layers = _typed(r), _typed(keep), _typed(layers)
    for name, value, wanted in (("--r", r, "r"), ("--keep", keep, "keep")):
        if value is not None and kind != wanted:
            instead = {"r": "Use --r", "keep": "Use --keep", None: "Leave it out"}[kind]
            raise UsageError(f"method '{method}' takes no {name}", remedy=instead)
    if kind is None:
        if layers is not None:
            raise UsageError(f"method '{method}' takes no --layers", remedy="Leave it out")
        return Recipe(method=method, options=dict(spec.options))
    if layers is not None:
        blocks = parse_layers(layers, depth)
    else:
        blocks = spec.default_layers if spec.default_layers is not None else tuple(range(depth))
        blocks = tuple(block for block in blocks if block < depth)
    if not blocks:
        raise UsageError(f"no block to reduce in: the model has {depth}", remedy="Name blocks with --layers")
    if kind == "r":
        amounts = parse_r(spec.default_amount if r is None else r, len(blocks))
        check_r(amounts, tokens, prefix)
    else:
        text = spec.default_amount if keep is None else keep
        amounts = parse_keep(text, len(blocks), tokens, prefix, fuse=spec.fuses)
    return Recipe(method=method, options=dict(spec.options), layers=blocks, amounts=amounts)


def _typed(value: object) -> str | None:
    """Numbers as a user types them: 13, 0.7, `3,6,9`."""
    if value is None or isinstance(value, str):
        return value
    return ",".join(map(str, value)) if isinstance(value, Iterable) else str(value)
