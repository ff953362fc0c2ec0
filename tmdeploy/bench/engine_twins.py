"""Which engines among those that are timed are each other's unmerged twin: none can be made from an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tmdeploy.backends import Runner
from tmdeploy.bench.arm import Arm

_BUILD = "build one with --method none, the same precision and profiles, and time it beside"


def pair_engines(arms: Sequence[Arm], *, twin: bool, free_merge: bool, warnings: list[str]) -> list[Arm]:
    """Give every engine that reduces the unmerged engine that differs in nothing else, called alike, as its baseline.

    Args:
        arms: All arms.
        twin: Unmerged twins are wanted, so say where there is none.
        free_merge: Free-merge twins are wanted; say that there are none.
        warnings: Gets a sentence an engine.
    """
    engines = [one for one in arms if one.runner.engine is not None]
    bare = [one for one in engines if one.runner.metadata is not None and not one.runner.metadata.steps]
    paired = []
    for one in arms:
        runner = one.runner
        if runner.engine is None or runner.metadata is None or not runner.metadata.steps:
            paired.append(one)
            continue
        found = None
        reasons = []
        for other in bare:
            if other.mode != one.mode:
                continue
            difference = _difference(runner, other.runner)
            if not difference:
                found = other
                break
            reasons.append(f"{other.runner.name} is none: {difference}")
        if found is None and twin:
            warnings.append(f"{runner.name}: no unmerged engine ({'; '.join(reasons) or 'none was given'}); {_BUILD}")
        if free_merge:
            warnings.append(f"{runner.name}: no free-merge twin can be made from an engine")
        paired.append(one if found is None else replace(one, baseline=found.name))
    return paired


def _difference(merged: Runner, other: Runner) -> str:
    """Why the other engine is not the unmerged twin; empty if it is."""
    if merged.card is None or other.card is None or merged.card.architecture != other.card.architecture:
        return "another architecture"
    ours, theirs = _build(merged), _build(other)
    return next(
        (f"{name} {theirs.get(name)}, not {here}" for name, here in ours.items() if theirs.get(name) != here), ""
    )


def _build(runner: Runner) -> dict[str, str]:
    assert runner.engine is not None  # noqa: S101 - chosen so
    return {
        "backend": runner.facts.backend,
        **runner.engine.build,
        "input": "pixels" if runner.pixels_in else "float",
    }
