"""A recipe: which method, with which options, reduces how many tokens in which blocks."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

from pydantic import BaseModel, ConfigDict, model_validator

from tmdeploy.card.schedule import (
    Step,
    as_typed,
    merged_count,
    parse_keep,
    parse_layers,
    parse_r,
    remarks,
    select_count,
)
from tmdeploy.errors import UsageError
from tmdeploy.methods import MethodSpec, build_method


class Recipe(BaseModel):
    """A method and its schedule, resolved for one model; JSON in checkpoints and artifacts.

    Attributes:
        method: Registered name.
        options: Named options of the method.
        layers: Blocks with a reduction step, 0-based, ascending.
        amounts: r or keep of each step, one per layer.
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
        if any(second <= first for first, second in itertools.pairwise(self.layers)):
            raise ValueError("layers are not in ascending order, each once")
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
            UsageError: Not one amount per step, or a negative one.
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

    def parse(self, text: str, option: str, *, tokens: int, prefix: int) -> tuple[int, ...]:
        """Amounts for these steps from what a user typed: one grammar for exporting and for running.

        Args:
            text: As `schedule.parse_r` or `schedule.parse_keep`, whichever the method takes.
            option: What it was typed after: `--r`, `--keep`, or `--schedule` for either.
            tokens: Tokens that enter block 0, prefix included.
            prefix: Prefix tokens.

        Raises:
            UsageError: The method counts otherwise, reduces nothing, or the text cannot be meant.
        """
        spec = self.spec
        check_option(spec, option)
        if spec.schedule_kind == "r":
            return parse_r(text, len(self.layers), option)
        return parse_keep(text, len(self.layers), tokens, prefix, fuse=spec.fuses, option=option)

    def remarks(
        self, *, tokens: int, prefix: int, depth: int, amounts: Sequence[int] | None = None, text: str | None = None
    ) -> tuple[str, ...]:
        """What to tell the user about a schedule, the recipe's own or another: `schedule.remarks`."""
        kind = self.spec.schedule_kind
        if kind is None:
            return ()
        return remarks(self.steps(tokens, prefix, amounts), kind, prefix=prefix, depth=depth, text=text)


def check_option(spec: MethodSpec, option: str) -> None:
    """Refuse `--r` for a method that keeps, `--keep` for one that merges, and either for one that does nothing.

    Raises:
        UsageError: With the option to use instead.
    """
    kind = spec.schedule_kind
    if kind is None:
        other = "evit" if option == "--keep" else "tome"
        raise UsageError(
            f"method '{spec.name}' reduces no tokens, so it takes no {option}",
            remedy=f"Add --method {other}, or leave it out",
        )
    if option not in {f"--{kind}", "--schedule"}:
        raise UsageError(f"method '{spec.name}' takes no {option}", remedy=f"Use --{kind}")


def make_recipe(
    method: str,
    *,
    depth: int,
    tokens: int,
    prefix: int,
    r: str | float | Sequence[float] | None = None,
    keep: str | float | Sequence[float] | None = None,
    schedule: str | None = None,
    layers: str | Sequence[int] | None = None,
    options: Mapping[str, str | int | float | bool] | None = None,
) -> Recipe:
    """Resolve what a user typed or passed in Python (`--method`, `--r`, `--keep`, `--layers`, options) for one model.

    Args:
        method: Registered name.
        depth: Blocks of the model.
        tokens: Tokens that enter block 0, prefix included.
        prefix: Prefix tokens.
        r: As `schedule.parse_r`, or numbers: 13, [8, 8, 4]; None takes the method's default.
        keep: As `schedule.parse_keep`, or numbers: 0.7, [138, 97, 68]; None takes the method's default.
        schedule: Instead of these two, whichever the method takes.
        layers: As `schedule.parse_layers`, or numbers; None takes the method's default.
        options: Named options of the method.

    Raises:
        UsageError: An option that the method does not have, or a schedule that is not possible.
    """
    spec = build_method(method, options)
    kind = spec.schedule_kind
    layers = None if layers is None else as_typed(layers)
    given = (("--r", r), ("--keep", keep), ("--schedule", schedule))
    typed = [(option, as_typed(value)) for option, value in given if value is not None]
    for option, _ in typed:
        check_option(spec, option)
    if len(typed) > 1:
        raise UsageError(f"{typed[0][0]} and {typed[1][0]} say the same", remedy="Give one of them")
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
    option, text = typed[0] if typed else (f"--{kind}", spec.default_amount)
    bare = Recipe(method=method, options=dict(spec.options), layers=blocks, amounts=(0,) * len(blocks))
    amounts = bare.parse(text, option, tokens=tokens, prefix=prefix)
    return bare.model_copy(update={"amounts": amounts})
