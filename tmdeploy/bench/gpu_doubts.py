"""What to doubt about times on a GPU: trtexec's rules, and the clocks.

The first three rules and their limits are those of NVIDIA/TensorRT, samples/common/sampleReporting.cpp: medians of
enqueueing and of the copies against that of compute, and the spread of compute. Its limit on the spread was 1 % up to
TensorRT 10 and is 2.5 % in 11.1.
"""

from __future__ import annotations

from collections.abc import Sequence

from tmdeploy.report.schemas.bench import ArmRow, Clocks, GpuTimes

_ENQUEUE_SHARE = 0.8
_CV_LIMIT = 0.025
_CLOCK_LIMIT = 0.02  # a GPU's clock moves in steps of 15 MHz, about 1 %
_LOCK = "lock the clocks (nvidia-smi --lock-gpu-clocks)"


def gpu_doubts(rows: Sequence[ArmRow]) -> list[str]:
    """Sentences about rows of engines; rows of anything else are passed over."""
    found: list[str] = []
    for row in rows:
        if row.gpu is not None:
            where = f"{row.name} at batch {row.batch}"
            found += [f"{where}: {text}" for text in (*_bounds(row.gpu), *_spread(row.gpu))]
    return found + _clocks([row.gpu.clocks for row in rows if row.gpu is not None and row.gpu.clocks is not None])


def _bounds(gpu: GpuTimes) -> list[str]:
    times, found = gpu.queued, []
    compute, enqueue = times["compute"].median_ms, times["enqueue"].median_ms
    if enqueue > _ENQUEUE_SHARE * compute:
        remedy = "a larger batch would fill the GPU" if gpu.cuda_graph else "a CUDA graph may help"
        found.append(
            f"enqueueing takes {_ms(enqueue)}, {enqueue / compute:.0%} of the compute time {_ms(compute)}: throughput "
            f"may be bound by the host; {remedy}"
        )
    for name, words in (("h2d", "copying the images"), ("d2h", "copying the outputs back")):
        if name in times and times[name].median_ms >= compute:
            found.append(
                f"{words} takes {_ms(times[name].median_ms)}, compute {_ms(compute)}: throughput may be bound by "
                "transfers; compare with --no-transfers"
            )
    return found


def _spread(gpu: GpuTimes) -> list[str]:
    cv = gpu.queued["compute"].cv
    if cv <= _CV_LIMIT:
        return []
    return [f"compute times vary by {cv:.1%} (limit {_CV_LIMIT:.1%}); {_LOCK}, and keep other work off the GPU"]


def _clocks(clocks: Sequence[Clocks]) -> list[str]:
    """Over all arms: two that ran at different clocks do not compare, even if each was steady."""
    if not clocks:
        return []
    low, high = min(one.sm_mhz_low for one in clocks), max(one.sm_mhz_high for one in clocks)
    throttled = sorted({reason for one in clocks for reason in one.throttled})
    found = [f"the GPU's clock moved between {low} and {high} MHz; {_LOCK}"] if high > low * (1 + _CLOCK_LIMIT) else []
    return [*found, f"the GPU was throttled ({', '.join(throttled)})"] if throttled else found


def _ms(value: float) -> str:
    return f"{value:.3g} ms"
