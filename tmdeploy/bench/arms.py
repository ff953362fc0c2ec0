"""Which arms a benchmark has: the models, their unmerged twins, their free-merge twins."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from tmdeploy.backends import Runner, backend_for, open_runner
from tmdeploy.backends.options import CheckpointOptions
from tmdeploy.errors import ArtifactError
from tmdeploy.macs import model_macs
from tmdeploy.metadata import ArtifactMetadata
from tmdeploy.models.arch import VitConfig
from tmdeploy.pairing import options_like
from tmdeploy.recipe import Recipe

Schedule = tuple[int, ...] | None


@dataclass(frozen=True)
class Contender:
    """One arm before it is timed.

    Attributes:
        name: In tables.
        kind: `model`, `unmerged` or `free-merge`.
        runner: Loaded.
        path: The file it is, or is a twin of.
        schedule: Amounts to run with; None is the default.
        macs: Of an image; None for a foreign file.
        baseline: Name of the arm it is compared with first; None for a baseline.
        checkpoint: How it was opened; None for an exported file.
        backend: As asked for; None for the suffix's default.
    """

    name: str
    kind: str
    runner: Runner
    path: Path
    schedule: Schedule
    macs: int | None
    baseline: str | None
    checkpoint: CheckpointOptions | None = None
    backend: str | None = None

    @property
    def precision(self) -> str:
        """fp32, fp16 or bf16."""
        return self.runner.describe().get("precision", "fp32")


def gather(
    paths: Sequence[Path],
    *,
    backends: Sequence[str | None] = (None,),
    threads: int | None,
    schedules: Callable[[Runner], Sequence[Schedule]],
    twin: bool,
    free_merge: bool,
    checkpoint: CheckpointOptions,
    warnings: list[str],
) -> list[Contender]:
    """Open every model and build its twins.

    Args:
        paths: Models.
        backends: Of exported files; one set of arms each.
        threads: Of every backend.
        schedules: One arm each, for a model; None is its own schedule.
        twin: Also time each model's unmerged twin.
        free_merge: Also time each exported file's free-merge twin.
        checkpoint: How to open checkpoints; what it leaves open comes from the first exported file, if there is one.
        warnings: Gets a sentence for every twin that could not be made.
    """
    found: list[Contender] = []
    taken: dict[str, int] = {}
    exported = {
        (path, backend): open_runner(path, threads=threads, backend=backend)
        for path in dict.fromkeys(paths)
        if backend_for(path).name != "pytorch"
        for backend in backends
    }
    options = options_like(list(exported.values()), checkpoint)
    for path in paths:
        chosen = [backend for backend in backends if (path, backend) in exported]
        for backend in chosen or [None]:
            label = labelled(path, backend if len(backends) > 1 else None)
            taken[label] = taken.get(label, 0) + 1
            if taken[label] > 1:
                label = f"{label} ({taken[label]})"
            if chosen:
                runner = exported[path, backend]
                found += _exported_arms(runner, backend, label, threads, schedules, twin, free_merge, warnings)
            else:
                found += _checkpoint_arms(path, label, threads, schedules, twin, options)
    return found


def _checkpoint_arms(
    path: Path,
    label: str,
    threads: int | None,
    schedules: Callable[[Runner], Sequence[Schedule]],
    twin: bool,
    options: CheckpointOptions,
) -> list[Contender]:
    runner = open_runner(path, threads=threads, **options.keywords())
    config, recipe = runner.config, runner.recipe  # type: ignore[attr-defined]
    plain = model_macs(config).total
    if not recipe.layers:
        return [Contender(label, "model", runner, path, None, plain, None, options)]
    arms = []
    baseline = f"{label}, unmerged" if twin else None
    if baseline is not None:
        bare = open_runner(path, threads=threads, **replace(options, recipe=Recipe(method="none")).keywords())
        arms.append(Contender(baseline, "unmerged", bare, path, None, plain, None, options))
    for schedule in schedules(runner):
        macs = model_macs(config, recipe.steps(config.tokens, config.num_prefix, schedule)).total
        arms.append(Contender(_named(label, schedule), "model", runner, path, schedule, macs, baseline, options))
    return arms


def _exported_arms(
    runner: Runner,
    backend: str | None,
    label: str,
    threads: int | None,
    schedules: Callable[[Runner], Sequence[Schedule]],
    twin: bool,
    free_merge: bool,
    warnings: list[str],
) -> list[Contender]:
    path, metadata = runner.path, runner.metadata
    if metadata is None:
        warnings.append(f"{label} carries no tmdeploy metadata: no MACs, no unmerged twin")
        return [Contender(label, "model", runner, path, None, None, None, backend=backend)]
    config = VitConfig.model_validate(metadata.architecture)
    plain = model_macs(config).total
    if not metadata.steps:
        return [Contender(label, "model", runner, path, None, plain, None, backend=backend)]
    default = _macs(config, metadata, None)
    arms, baseline = [], None
    if backend_for(path).name == "tensorrt" and (twin or free_merge):
        warnings.append(f"{label}: no twin can be made from an engine; build one with --method none to compare with")
        twin = free_merge = False
    for kind, wanted, macs in (("unmerged", twin, plain), ("free-merge", free_merge, default)):
        if not wanted:
            continue
        try:
            made = _twin_runner(path, backend, metadata, kind, threads)
        except ArtifactError as error:
            warnings.append(f"{label}: {error.message}")
            continue
        name = f"{label}, {kind}"
        if kind == "unmerged":
            baseline = name
        compared = baseline if kind != "unmerged" else None
        arms.append(Contender(name, kind, made, path, None, macs, compared, backend=backend))
    for schedule in schedules(runner) if metadata.runtime_schedule else (None,):
        name = _named(label, schedule)
        macs = _macs(config, metadata, schedule)
        arms.append(Contender(name, "model", runner, path, schedule, macs, baseline, backend=backend))
    return arms


def _twin_runner(path: Path, backend: str | None, metadata: ArtifactMetadata, kind: str, threads: int | None) -> Runner:
    import onnx

    from tmdeploy.graph.twins import make_twin

    made = make_twin(onnx.load(str(path)), metadata, kind)  # type: ignore[arg-type]  # one of its kinds
    name = f"{path.name}, {kind}"
    return open_runner(path, threads=threads, backend=backend, model=made.SerializeToString(), name=name)


def _macs(config: VitConfig, metadata: ArtifactMetadata, schedule: Schedule) -> int:
    recipe = Recipe(
        method=metadata.method,
        options=dict(metadata.method_options),
        layers=metadata.layers,
        amounts=metadata.schedule,
    )
    return model_macs(config, recipe.steps(config.tokens, config.num_prefix, schedule)).total


def labelled(path: Path, backend: str | None) -> str:
    """A model's name in tables; with its backend, where there are several."""
    return path.name if backend is None else f"{path.name}, {backend}"


def _named(label: str, schedule: Schedule) -> str:
    from tmdeploy.report.schedule import schedule_text

    return label if schedule is None else f"{label}, {schedule_text(schedule)}"
