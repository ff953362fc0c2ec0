"""Time models side by side."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Callable, Sequence
from contextlib import ExitStack
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

import tmdeploy
from tmdeploy.backends import Runner
from tmdeploy.backends.options import CheckpointOptions
from tmdeploy.backends.pairing import load_samples
from tmdeploy.bench.arm import Arm, EngineMode, Schedule, engine_modes, labelled
from tmdeploy.bench.arms import gather
from tmdeploy.bench.batches import default_batches
from tmdeploy.bench.fairness import same_work, unlike
from tmdeploy.bench.gate import Gate
from tmdeploy.bench.gpu_doubts import gpu_doubts
from tmdeploy.bench.gpu_times import EngineCalls, Watch, engine_calls, gpu_times, spreads
from tmdeploy.bench.memory import Job, footprint
from tmdeploy.bench.pace import Pace
from tmdeploy.bench.timing import Protocol, TimedCall, latency, measure, ratio
from tmdeploy.errors import ArtifactError, UsageError
from tmdeploy.report.schemas.bench import ArmRow, BenchReport, GpuMemory, Machine, ModelRow, RatioRow
from tmdeploy.system.machine import command_line, cpu_name, package_version, usable_cores
from tmdeploy.system.progress import Progress, silent
from tmdeploy.tensorrt.cuda.clocks import clock_reader

_CV_LIMIT = 0.10
_PACKAGES = (
    *("onnxruntime", "onnxruntime-gpu", "openvino", "onnx", "numpy", "torch"),
    *("tensorrt", "tensorrt-rtx-cu13", "cuda-bindings"),
)
_RESIDENT = "device: images on the GPU, from enqueueing until the logits are there; nothing is copied"


@dataclass(frozen=True)
class _Entry:
    """An arm at one batch size, and the calls by which it is timed."""

    arm: Arm
    call: TimedCall
    engine: EngineCalls | None = None

    @property
    def calls(self) -> tuple[TimedCall, ...]:
        return (self.call,) if self.engine is None else (self.engine.single, self.engine.queued)


def bench(
    paths: Sequence[Path],
    *,
    batch_sizes: Sequence[int] | None = None,
    protocol: Protocol | None = None,
    backends: Sequence[str | None] = (None,),
    threads: int | None = None,
    data: Sequence[str] = (),
    schedules: Callable[[Runner], Sequence[Schedule]] = lambda _: (None,),
    twin: bool = True,
    free_merge: bool = False,
    memory: bool = True,
    checkpoint: CheckpointOptions | None = None,
    modes: Sequence[EngineMode] = engine_modes(),
    gate: Gate | None = None,
    check: Callable[[Sequence[Arm]], None] = lambda _: None,
    progress: Progress = silent,
) -> BenchReport:
    """Measure every model, and the twins that show what its reduction is worth, in interleaved rounds.

    Args:
        paths: Models: checkpoints and exported files, of the same image size.
        batch_sizes: One table each; None is 1 and 8, as far as every model takes them.
        protocol: How to measure.
        backends: Backends of exported files, one set of arms each (`openvino:bf16`); None is the suffix's default.
        threads: Threads of every backend; None leaves each its default.
        data: Real images; none takes seeded random ones.
        schedules: Schedules to time, for each model.
        twin: Add each model's unmerged twin.
        free_merge: Add each exported file's free-merge twin.
        memory: Measure load time and peak memory in fresh processes.
        checkpoint: How to open checkpoints; method and schedule come from the first exported file, if there is one.
        modes: How to call engines, one arm each.
        gate: What merged arms have to meet.
        check: Called with the arms before anything is measured; raises to stop.
        progress: Called with a short description.

    Raises:
        UsageError: Models that take different images, or a gate for which there is no unmerged twin.
    """
    protocol = protocol or Protocol()
    load_before = os.getloadavg()[0]
    warnings: list[str] = []
    progress("loading the models")
    with ExitStack() as opened:
        arms = gather(
            paths,
            opened,
            backends=backends,
            threads=threads,
            schedules=schedules,
            twin=twin,
            free_merge=free_merge,
            checkpoint=checkpoint or CheckpointOptions(),
            warnings=warnings,
            modes=modes,
        )
        check(arms)
        gate = gate or Gate()
        gate.check(arms)
        _check_same_images(arms)
        batch_sizes = batch_sizes or default_batches([one.runner for one in arms])
        models = []
        first = {(one.path, one.backend): one for one in reversed(arms)}
        for path, choice in dict.fromkeys((one.path, one.backend) for one in arms):
            options = first[path, choice].checkpoint
            shown = choice if len(backends) > 1 else None
            name = labelled(path, shown)
            progress(f"measuring the memory of {name}")
            job = Job(path, max(batch_sizes), threads, options, choice)
            row = _unmeasured(path, name, shown)
            models.append(_measured(row, job, warnings) if memory else row)
        rows: list[ArmRow] = []
        source = ""
        watch = _watch(arms, warnings)
        calls_a_batch = sum(1 if one.mode is None else 2 for one in arms)  # an engine is timed in two ways
        pace = Pace(protocol.work_of_a_call * calls_a_batch * len(batch_sizes))
        for batch in batch_sizes:
            images, source = _images(arms[0].runner, data, batch)
            with ExitStack() as timers:
                entries = [_entry(arm, images, batch, watch, timers) for arm in arms]
                calls = [call for entry in entries for call in entry.calls]
                measure(calls, protocol, pace=pace, progress=_at(batch, progress))
                rows += _rows(entries, batch, protocol.percentiles)
        warnings += [*unlike(arms), *gpu_doubts(rows), *_doubts(rows, load_before)]
    return BenchReport(
        tool_version=tmdeploy.__version__,
        data=source,
        rounds=protocol.rounds,
        models=tuple(models),
        arms=tuple(rows),
        gate=gate.judge(rows),
        warnings=tuple(dict.fromkeys(warnings)),
        machine=_machine(load_before),
    )


def _at(batch: int, progress: Progress) -> Progress:
    return lambda text, share=None, /: progress(f"batch {batch}: {text}", share)


def _watch(arms: Sequence[Arm], warnings: list[str]) -> Watch | None:
    facts = next((one.runner.facts for one in arms if one.runner.engine is not None), None)
    if facts is None:
        return None
    watch, problem = clock_reader(facts.gpu or 0)
    if watch is None:
        warnings.append(f"the GPU's clocks were not watched: {problem}")
    return watch


def _entry(arm: Arm, images: NDArray[np.generic], batch: int, watch: Watch | None, timers: ExitStack) -> _Entry:
    runner, schedule = arm.runner, arm.schedule
    if arm.mode is not None:
        engine = engine_calls(arm, images, watch)
        timers.callback(engine.timer.close)
        return _Entry(arm, engine.single, engine)
    if not runner.takes_batch(batch):
        static = runner.metadata is not None and not runner.metadata.dynamic_batch
        raise UsageError(
            f"{arm.name} takes batch 1 only" if static else f"{arm.name} does not take batch {batch}",
            remedy="Export it with --dynamic-batch, or bench --batch 1",
        )

    def read() -> dict[str, list[float]]:
        return {} if runner.compute_seconds is None else {"compute": [runner.compute_seconds]}

    return _Entry(arm, TimedCall(arm.name, lambda: runner.infer(images, schedule), read=read))


def _images(runner: Runner, data: Sequence[str], batch: int) -> tuple[NDArray[np.generic], str]:
    samples = load_samples(runner, data, random=batch)
    repeats = -(-batch // len(samples.images))
    return np.concatenate([samples.images] * repeats)[:batch], samples.source


def _check_same_images(arms: Sequence[Arm]) -> None:
    first = arms[0].runner
    for arm in arms[1:]:
        runner = arm.runner
        if (runner.preprocessing.image_size, runner.pixels_in) != (first.preprocessing.image_size, first.pixels_in):
            raise UsageError(f"{arm.name} and {arms[0].name} take different images: time them apart")


def _rows(entries: Sequence[_Entry], batch: int, percentiles: Sequence[float]) -> list[ArmRow]:
    by_name = {entry.arm.name: entry for entry in entries}
    rows = []
    for number, entry in enumerate(entries, 1):
        arm, call = entry.arm, entry.call
        numbers = latency(call, percentiles)
        row = ArmRow(
            number=number,
            name=arm.name,
            kind=arm.kind,
            path=str(arm.path),
            batch=batch,
            schedule=arm.schedule,
            amounts=arm.amounts,
            backend=_described(arm),
            precision=arm.precision,
            stable_warm_up=all(one.stable for one in entry.calls),
            images_per_s=batch / numbers.median_ms * 1e3,
            gmacs=None if arm.macs is None else arm.macs / 1e9,
            rounds_ms=tuple(tuple(round(sample * 1e3, 4) for sample in one) for one in call.rounds),
            boundary=_RESIDENT if arm.mode is not None and not arm.mode.transfers else None,
            gpu=None if entry.engine is None else gpu_times(entry.engine, batch, percentiles),
            compute=None if entry.engine is not None else spreads(call, percentiles).get("compute"),
            **asdict(numbers),
        )
        if arm.baseline is not None:
            base = by_name[arm.baseline]
            row = _compared(row, entry, base)
        reference = same_work(arm, [other.arm for other in entries])
        if reference is not None:
            row = row.model_copy(update={"pytorch": _ratio(call, by_name[reference.name].call)})
        rows.append(row)
    return rows


def _described(arm: Arm) -> dict[str, str]:
    described, mode = arm.runner.facts.described(), arm.mode
    return described if mode is None else {**described, "cuda_graph": "on" if mode.cuda_graph else "off"}


def _ratio(call: TimedCall, baseline: TimedCall) -> RatioRow:
    times = ratio(call, baseline)
    return RatioRow(baseline=baseline.name, decided=times.decided, **asdict(times))


def _compared(row: ArmRow, entry: _Entry, base: _Entry) -> ArmRow:
    times = _ratio(entry.call, base.call)
    changes: dict[str, object] = {"ratio": times}
    if entry.arm.macs is not None and base.arm.macs is not None:
        macs = entry.arm.macs / base.arm.macs
        changes["mac_ratio"] = macs
        if macs < 1.0:
            changes["realised"] = (1.0 - times.median) / (1.0 - macs)
    return row.model_copy(update=changes)


def _measured(row: ModelRow, job: Job, warnings: list[str]) -> ModelRow:
    try:
        found = footprint(job)
    except ArtifactError as error:
        warnings.append(f"{row.name}: {error.message}")
        return row
    gpu = None
    if found.gpu is not None:
        gpu = GpuMemory(**asdict(found.gpu.stated), loaded=found.gpu.loaded, running=found.gpu.running)
    measured = {"load_ms": found.load_ms, "peak_mib": found.peak_mib, "model_mib": found.model_mib, "gpu": gpu}
    return row.model_copy(update=measured)


def _unmeasured(path: Path, name: str, backend: str | None) -> ModelRow:
    size = path.stat().st_size
    return ModelRow(name=name, path=str(path), backend=backend, bytes=size, load_ms=None, peak_mib=None, model_mib=None)


def _doubts(rows: Sequence[ArmRow], load_before: float) -> list[str]:
    doubts = []
    if load_before > 0.5 * usable_cores():
        doubts.append(f"the machine was busy before the start (load {load_before:.1f} on {usable_cores()} cores)")
    noisy = [row for row in rows if row.cv > _CV_LIMIT]
    if noisy:
        worst = max(noisy, key=lambda row: row.cv)
        doubts.append(f"noisy: the times of arm {worst.number} at batch {worst.batch} vary by {worst.cv:.0%}")
    unstable: dict[int, list[str]] = {}
    for row in rows:
        if not row.stable_warm_up:
            unstable.setdefault(row.batch, []).append(str(row.number))
    if unstable:
        where = "; ".join(f"arm {', '.join(numbers)} at batch {batch}" for batch, numbers in unstable.items())
        doubts.append(f"warm-up ended at its limit, not because times agreed: {where}")
    return doubts


def _machine(load_before: float) -> Machine:
    versions = {"python": platform.python_version(), **{name: package_version(name) for name in _PACKAGES}}
    return Machine(
        cpu=cpu_name(),
        cores=usable_cores(),
        platform=platform.platform(),
        load_before=load_before,
        load_after=os.getloadavg()[0],
        versions=versions,
        command=command_line(),
        date=datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    )
