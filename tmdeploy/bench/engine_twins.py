"""Which engines among those that are timed are each other's unmerged twin: none can be made from an engine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from tmdeploy.backends.tensorrt import TensorrtRunner
from tmdeploy.bench.contender import Contender

_BUILD = "build one with --method none, the same precision and profiles, and time it beside"


def pair_engines(
    contenders: Sequence[Contender], *, twin: bool, free_merge: bool, warnings: list[str]
) -> list[Contender]:
    """Give every engine that reduces the unmerged engine that differs in nothing else, called alike, as its baseline.

    Args:
        contenders: All arms.
        twin: Unmerged twins are wanted, so say where there is none.
        free_merge: Free-merge twins are wanted; say that there are none.
        warnings: Gets a sentence an engine.
    """
    engines = [one for one in contenders if isinstance(one.runner, TensorrtRunner)]
    bare = [one for one in engines if one.runner.metadata is not None and not one.runner.metadata.steps]
    paired = []
    for one in contenders:
        runner = one.runner
        if not isinstance(runner, TensorrtRunner) or runner.metadata is None or not runner.metadata.steps:
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


def _difference(merged: TensorrtRunner, other: object) -> str:
    """Why the other is not the unmerged twin; empty if it is."""
    assert isinstance(other, TensorrtRunner)  # noqa: S101 - chosen so
    ours, theirs = merged.record, other.record
    if merged.metadata is None or other.metadata is None or merged.metadata.architecture != other.metadata.architecture:
        return "another architecture"
    for name, here, there in (
        ("flavor", ours.flavor.label, theirs.flavor.label),
        ("precision", ours.precision, theirs.precision),
        ("batch", " ".join(map(str, ours.profiles)), " ".join(map(str, theirs.profiles))),
        ("input", "pixels" if merged.pixels_in else "float", "pixels" if other.pixels_in else "float"),
    ):
        if here != there:
            return f"{name} {there}, not {here}"
    return ""
