"""Which arms a benchmark has: the models, their unmerged twins, their free-merge twins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tmdeploy.backends import Runner, backend_for, open_runner
from tmdeploy.backends.engine import Engine
from tmdeploy.backends.options import CheckpointOptions
from tmdeploy.backends.pairing import options_like
from tmdeploy.bench.arm import Arm, EngineMode, Schedule, amounts_text, engine_modes, labelled, scheduled
from tmdeploy.bench.engine_twins import pair_engines
from tmdeploy.bench.fairness import checkpoint_device
from tmdeploy.card.metadata import ArtifactMetadata
from tmdeploy.card.recipe import Recipe
from tmdeploy.errors import ArtifactError
from tmdeploy.graph.base import run_pass
from tmdeploy.graph.onnx_file import read_onnx
from tmdeploy.system.boundary import library_call

if TYPE_CHECKING:
    from tmdeploy.graph.twins import Kind


def gather(
    paths: Sequence[Path],
    opened: ExitStack,
    *,
    backends: Sequence[str | None] = (None,),
    threads: int | None,
    schedules: Callable[[Runner], Sequence[Schedule]],
    twin: bool,
    free_merge: bool,
    checkpoint: CheckpointOptions,
    warnings: list[str],
    modes: Sequence[EngineMode] = engine_modes(),
) -> list[Arm]:
    """Open every model and build its twins; engines get the twins that are among them.

    Args:
        paths: Models.
        opened: Closes all that is opened.
        backends: Backends of exported files; one set of arms each.
        threads: Threads of every backend.
        schedules: One arm each, for a model; None is its own schedule.
        twin: Also time each model's unmerged twin.
        free_merge: Also time each exported file's free-merge twin.
        checkpoint: How to open checkpoints; what it leaves open comes from the first exported file, if there is one.
            Its device may be `auto`.
        warnings: Gets a sentence for every twin that could not be made.
        modes: How to call engines, one arm each.
    """
    found: list[Arm] = []
    taken: dict[str, int] = {}

    def opening(path: Path, **options: Any) -> Runner:
        return opened.enter_context(open_runner(path, threads=threads, **options))

    exported = {
        (path, backend): opening(path, backend=backend)
        for path in dict.fromkeys(paths)
        if not backend_for(path).reads_checkpoints
        for backend in backends
    }
    options = options_like(list(exported.values()), checkpoint)
    if options.device == "auto" and any(backend_for(path).reads_checkpoints for path in paths):
        options = replace(options, device=checkpoint_device(list(exported.values())))
    for path in paths:
        chosen = [backend for backend in backends if (path, backend) in exported]
        for backend in chosen or [None]:
            label = labelled(path, backend if len(backends) > 1 else None)
            taken[label] = taken.get(label, 0) + 1
            if taken[label] > 1:
                label = f"{label} ({taken[label]})"
            runner = exported.get((path, backend))
            if runner is None:
                found += _checkpoint_arms(path, label, opening, schedules, twin, options)
            elif runner.engine is not None:
                found += _engine_arms(runner, runner.engine, backend, label, schedules, modes, warnings)
            else:
                found += _exported_arms(runner, backend, label, opening, schedules, twin, free_merge, warnings)
    return pair_engines(found, twin=twin, free_merge=free_merge, warnings=warnings)


def _checkpoint_arms(
    path: Path,
    label: str,
    opening: Callable[..., Runner],
    schedules: Callable[[Runner], Sequence[Schedule]],
    twin: bool,
    options: CheckpointOptions,
) -> list[Arm]:
    runner = opening(path, **options.keywords())
    card = runner.card
    assert card is not None  # noqa: S101 - of a checkpoint
    plain = card.unmerged_macs
    if not card.reduces:
        return [Arm(label, "model", runner, path, None, plain, None, checkpoint=options)]
    arms = []
    baseline = f"{label}, unmerged" if twin else None
    if baseline is not None:
        bare = opening(path, **replace(options, recipe=Recipe(method="none")).keywords())
        arms.append(Arm(baseline, "unmerged", bare, path, None, plain, None, checkpoint=options))
    for schedule in schedules(runner):
        macs = card.total_macs(schedule)
        amounts = amounts_text(card.schedule_kind, schedule or card.reduction.amounts)
        name = scheduled(label, schedule)
        arms.append(Arm(name, "model", runner, path, schedule, macs, baseline, amounts, options))
    return arms


def _engine_arms(
    runner: Runner,
    engine: Engine,
    backend: str | None,
    label: str,
    schedules: Callable[[Runner], Sequence[Schedule]],
    modes: Sequence[EngineMode],
    warnings: list[str],
) -> list[Arm]:
    card = runner.card
    if card is None:
        warnings.append(f"{label} carries no tmdeploy metadata: no MACs, no unmerged twin")
    chosen = schedules(runner)
    arms = []
    for schedule in chosen:
        macs = amounts = None
        if card is not None:
            amounts = amounts_text(card.schedule_kind, schedule or engine.amounts or card.reduction.amounts)
            macs = card.total_macs(schedule)
        for mode in modes:
            name = f"{scheduled(label, schedule)}, {mode}"
            arms.append(
                Arm(name, "model", runner, runner.path, schedule, macs, None, amounts, backend=backend, mode=mode)
            )
    return arms


def _exported_arms(
    runner: Runner,
    backend: str | None,
    label: str,
    opening: Callable[..., Runner],
    schedules: Callable[[Runner], Sequence[Schedule]],
    twin: bool,
    free_merge: bool,
    warnings: list[str],
) -> list[Arm]:
    path, metadata = runner.path, runner.metadata
    if metadata is None:
        warnings.append(f"{label} carries no tmdeploy metadata: no MACs, no unmerged twin")
        return [Arm(label, "model", runner, path, None, None, None, backend=backend)]
    card = metadata.card
    plain = card.unmerged_macs
    if not metadata.steps:
        return [Arm(label, "model", runner, path, None, plain, None, backend=backend)]
    arms, baseline = [], None

    def twin_of(kind: Kind, schedule: Schedule) -> Runner | None:
        try:
            if not backend_for(path, backend).takes_model:
                raise ArtifactError(f"no {kind} twin: {runner.facts.backend} runs files as they are")
            model = _twin(path, metadata, kind, schedule)
            return opening(path, backend=backend, model=model, name=f"{path.name}, {kind}")
        except ArtifactError as error:
            warnings.append(f"{label}: {error.message}")
            return None

    if twin and (made := twin_of("unmerged", None)) is not None:
        baseline = f"{label}, unmerged"
        arms.append(Arm(baseline, "unmerged", made, path, None, plain, None, backend=backend))
    for schedule in schedules(runner):
        name = scheduled(label, schedule)
        macs = card.total_macs(schedule)
        amounts = amounts_text(card.schedule_kind, schedule or card.reduction.amounts)
        if free_merge and (made := twin_of("free-merge", schedule)) is not None:
            free = f"{name}, free-merge"
            arms.append(Arm(free, "free-merge", made, path, None, macs, baseline, amounts, backend=backend))
        arms.append(Arm(name, "model", runner, path, schedule, macs, baseline, amounts, backend=backend))
    return arms


def _twin(path: Path, metadata: ArtifactMetadata, kind: Kind, schedule: Schedule) -> bytes:
    from tmdeploy.graph.twins import MakeTwin

    with library_call(path, "has no twin", remedy="Its graph is not as tmdeploy exports it: export it again"):
        made, _ = run_pass(read_onnx(path)[0], MakeTwin(kind, metadata, schedule))
    return bytes(made.SerializeToString())
