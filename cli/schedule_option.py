"""The options that say how many tokens go or stay: `--r`, `--keep`, and `--schedule` for either. Declared once."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Annotated, Any, NamedTuple

import typer

from tmdeploy.errors import UsageError

from .console import warn

if TYPE_CHECKING:
    from tmdeploy.backends import Runner
    from tmdeploy.card.metadata import ArtifactMetadata
    from tmdeploy.card.recipe import Recipe

Text = str | None
Texts = list[str] | None
_ARMS = " Repeatable: one run each."
_PROFILE = "With --profile: "
_EXPORT = "Export of a checkpoint: "


def _r(before: str = "", after: str = "") -> Any:
    what = "tokens to merge per block: 13, 26:0 (linear), or 8,8,4 (then 0)."
    return _option("--r", before, what, after)


def _keep(before: str = "", after: str = "") -> Any:
    what = "patch tokens to keep per step: rates (0.7, or 0.9,0.8,0.7; 1.0 is all) or counts (138,97,68; 1 is one)."
    return _option("--keep", before, what, after)


def _either(before: str = "", after: str = "") -> Any:
    return _option("--schedule", before, "the same as --r or --keep, whichever the model takes.", after)


def _option(name: str, before: str, what: str, after: str) -> Any:
    return typer.Option(name, metavar="AMOUNTS", help=f"{before}{what if before else what.capitalize()}{after}")


ROption = Annotated[Text, _r()]
KeepOption = Annotated[Text, _keep()]
ScheduleOption = Annotated[Text, _either()]
RsOption = Annotated[Texts, _r(after=_ARMS)]
KeepsOption = Annotated[Texts, _keep(after=_ARMS)]
SchedulesOption = Annotated[Texts, _either(after=_ARMS)]
ProfileROption = Annotated[Text, _r(_PROFILE)]
ProfileKeepOption = Annotated[Text, _keep(_PROFILE)]
ProfileScheduleOption = Annotated[Text, _either(_PROFILE)]
ExportROption = Annotated[Text, _r(_EXPORT)]
ExportKeepOption = Annotated[Text, _keep(_EXPORT)]
ExportScheduleOption = Annotated[Text, _either(_EXPORT)]


class Asked(NamedTuple):
    """What was typed after which of the three options."""

    option: str
    text: str

    def __str__(self) -> str:
        """As it was typed."""
        return f"{self.option} {self.text}"


class Reducer(NamedTuple):
    """A model as far as its schedule goes: its recipe (none: a foreign file), tokens and blocks."""

    name: str
    recipe: Recipe | None
    tokens: int
    prefix: int
    depth: int
    fixed: bool = False  # it takes no other schedule


def asked_for(r: Text | Texts, keep: Text | Texts, schedule: Text | Texts) -> tuple[Asked, ...]:
    """Everything that was typed, one entry a schedule."""
    found: list[Asked] = []
    for option, value in (("--r", r), ("--keep", keep), ("--schedule", schedule)):
        texts = [value] if isinstance(value, str) else value or []
        found += [Asked(option, text) for text in texts]
    return tuple(found)


def one_of(asked: Sequence[Asked]) -> Asked | None:
    """The schedule of a command that runs one.

    Raises:
        UsageError: Two were given.
    """
    if len(asked) > 1:
        raise UsageError(f"{asked[0]} and {asked[1]} say the same", remedy="Give one of them")
    return asked[0] if asked else None


def reducer(runner: Runner) -> Reducer:
    """An opened model."""
    if runner.metadata is not None:
        return described(runner.name, runner.metadata)
    from tmdeploy.backends.pairing import recipe_of
    from tmdeploy.card.arch import VitConfig

    config = getattr(runner, "config", None)  # of a checkpoint
    if not isinstance(config, VitConfig):
        return Reducer(runner.name, None, 0, 0, 0)
    return Reducer(runner.name, recipe_of(runner), config.tokens, config.num_prefix, config.depth)


def described(name: str, metadata: ArtifactMetadata) -> Reducer:
    """A model by what its file says."""
    from tmdeploy.card.facts import read_config
    from tmdeploy.card.recipe import Recipe

    config = read_config(metadata.architecture)
    fixed = not metadata.runtime_schedule
    return Reducer(name, Recipe.of(metadata), config.tokens, config.num_prefix, config.depth, fixed)


def check_fits(asked: Asked, model: Reducer) -> None:
    """Refuse what was asked for if the model cannot run with any such schedule.

    Raises:
        UsageError: It reduces nothing, its schedule is fixed, or it counts otherwise (`--keep` for ToMe).
    """
    from tmdeploy.card.recipe import check_option

    if model.recipe is None or not model.recipe.layers:
        raise UsageError(f"{model.name} reduces no tokens, so it takes no {asked.option}", remedy="Leave it out")
    check_option(model.recipe.spec, asked.option)
    if model.fixed:
        raise UsageError(
            f"{model.name} has a fixed schedule, so it takes no {asked.option}",
            remedy="Export with --runtime-r, build an engine with --schedule-range",
        )


def amounts_of(asked: Asked | None, model: Reducer, tell: Callable[[str], None] = warn) -> tuple[int, ...] | None:
    """One amount a reduction step of this model; None if nothing was asked for. Tells what is clipped.

    Raises:
        UsageError: The model reduces nothing, counts otherwise, or the text cannot be meant.
    """
    if asked is None:
        return None
    check_fits(asked, model)
    assert model.recipe is not None  # noqa: S101 - it fits
    amounts = model.recipe.parse(asked.text, asked.option, tokens=model.tokens, prefix=model.prefix)
    for remark in model.recipe.remarks(
        tokens=model.tokens, prefix=model.prefix, depth=model.depth, amounts=amounts, text=asked.text
    ):
        tell(f"{model.name}: {remark}")
    return amounts


class ForEach:
    """Schedules for several models: each takes those of its kind, and one that no model takes is refused."""

    def __init__(self, asked: Sequence[Asked]) -> None:
        self._asked = asked
        self._refused: dict[Asked, UsageError] = {}
        self._taken: set[Asked] = set()
        self._told: set[str] = set()

    def __call__(self, runner: Runner) -> tuple[tuple[int, ...] | None, ...]:
        """Those of this model; its own schedule where none is for it."""
        model = reducer(runner)
        found = [self._amounts(asked, model) for asked in self._asked]
        different = dict.fromkeys(amounts for amounts in found if amounts is not None)  # 8 and 8:8 are one arm
        return tuple(different) or (None,)

    def _amounts(self, asked: Asked, model: Reducer) -> tuple[int, ...] | None:
        try:
            check_fits(asked, model)
        except UsageError as error:
            self._refused[asked] = error
            return None
        self._taken.add(asked)
        return amounts_of(asked, model, self._tell)

    def _tell(self, remark: str) -> None:
        """Once, for a file that runs on several backends."""
        if remark not in self._told:
            self._told.add(remark)
            warn(remark)

    def check(self) -> None:
        """Once all models have been asked.

        Raises:
            UsageError: A schedule that none of them takes; says why.
        """
        for asked in self._asked:
            if asked not in self._taken:
                nobody = UsageError(f"{asked}: no model here reduces tokens", remedy="Leave it out")
                raise self._refused.get(asked, nobody)
