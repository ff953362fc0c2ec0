"""Whether two models' plans can be compared at all, and what the reference must be run with for it."""

from __future__ import annotations

from dataclasses import dataclass, replace

from tmdeploy.backends.base import Runner
from tmdeploy.card.recipe import Recipe


@dataclass(frozen=True)
class Comparability:
    """What the two models' cards say before anything runs.

    Attributes:
        problem: Why plans cannot be compared; None if they can.
        reference_schedule: Amounts for the reference where the candidate runs with its default; None is its own.
        reference_reduces: Whether the reference takes a schedule.
        num_prefix: Prefix tokens.
    """

    problem: str | None
    reference_schedule: tuple[int, ...] | None = None
    reference_reduces: bool = False
    num_prefix: int = 1


def comparability(reference: Runner, candidate: Runner) -> Comparability:
    """Compare what the two say about themselves.

    Where only the plans are out of reach, as in an engine, both still run with the same schedule.
    """
    found = _comparability(reference, candidate)
    for runner in (candidate, reference):
        if found.problem is None and runner.plans_withheld:
            return replace(found, problem=runner.plans_withheld)
    return found


def _comparability(reference: Runner, candidate: Runner) -> Comparability:
    reduces = reference.card is not None and reference.card.reduces
    for runner in (candidate, reference):
        if runner.card is None:
            return Comparability(f"{runner.name} carries no tmdeploy metadata", reference_reduces=reduces)
        if not runner.card.reduces:
            return Comparability(f"{runner.name} reduces no tokens", reference_reduces=reduces)
    assert reference.card is not None and candidate.card is not None  # noqa: S101, PT018 - the loop returned otherwise
    ours, theirs = reference.card.reduction, candidate.card.reduction
    prefix = candidate.card.num_prefix
    if (ours.method, ours.layers) != (theirs.method, theirs.layers):
        return Comparability(
            f"{reference.name} reduces with {_what(ours)}, {candidate.name} with {_what(theirs)}",
            reference_reduces=True,
        )
    if ours.amounts == theirs.amounts:
        return Comparability(None, None, True, prefix)
    if reference.metadata is not None and reference.metadata.schedule_input is None:
        return Comparability(
            f"{reference.name} was exported with another fixed schedule than {candidate.name}", reference_reduces=True
        )
    return Comparability(None, theirs.amounts, True, prefix)


def _what(recipe: Recipe) -> str:
    return f"{recipe.method} in blocks {','.join(map(str, recipe.layers))}"
