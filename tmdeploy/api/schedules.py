"""How many tokens go or stay: `r`, `keep`, and `schedule` for either, of one run or of several."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, NamedTuple

from tmdeploy.api.arguments import Amounts, warn
from tmdeploy.card.schedule import as_typed
from tmdeploy.errors import UsageError

if TYPE_CHECKING:
    from tmdeploy.backends import Runner
    from tmdeploy.card.card import ModelCard

Several = Amounts | Sequence[Amounts]


class Asked(NamedTuple):
    """What was typed after which of the three options."""

    option: str
    text: str

    def __str__(self) -> str:
        """As it was typed."""
        return f"{self.option} {self.text}"


class Reducer(NamedTuple):
    """A model as far as its schedule goes: its card (none: a foreign file), and whether it takes no other schedule."""

    name: str
    card: ModelCard | None
    fixed: bool


def asked_for(r: Several | None, keep: Several | None, schedule: Several | None) -> tuple[Asked, ...]:
    """Everything that was asked for, one entry a schedule: a list of numbers is one, of texts or lists several."""
    found: list[Asked] = []
    for option, value in (("--r", r), ("--keep", keep), ("--schedule", schedule)):
        if value is None:
            continue
        one = isinstance(value, str | int | float) or all(isinstance(entry, int | float) for entry in value)
        found += [Asked(option, as_typed(entry)) for entry in ([value] if one else value)]  # type: ignore[union-attr]
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
    fixed = runner.metadata is not None and runner.metadata.schedule_input is None
    return Reducer(runner.name, runner.card, fixed)


def check_fits(asked: Asked, model: Reducer) -> None:
    """Refuse what was asked for if the model cannot run with any such schedule.

    Raises:
        UsageError: It reduces nothing, its schedule is fixed, or it counts otherwise (`--keep` for ToMe).
    """
    from tmdeploy.card.recipe import check_option

    if model.card is None or not model.card.reduces:
        raise UsageError(f"{model.name} reduces no tokens, so it takes no {asked.option}", remedy="Leave it out")
    check_option(model.card.reduction.spec, asked.option)
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
    assert model.card is not None  # noqa: S101 - it fits
    amounts = model.card.parse_schedule(asked.text, asked.option)
    for remark in model.card.remarks(amounts, asked.text):
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
