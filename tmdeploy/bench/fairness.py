"""Whether arms may be compared: same device, same precision."""

from __future__ import annotations

from collections.abc import Sequence

from tmdeploy.backends import Runner
from tmdeploy.bench.arm import Arm
from tmdeploy.lazy import require


def checkpoint_device(others: Sequence[Runner]) -> str:
    """Where to run a checkpoint if nothing was said: on the GPU that another arm runs on, if torch sees it.

    Args:
        others: What it is timed beside.

    Returns:
        `cpu` or a name of CUDA's, such as `cuda:0`.
    """
    gpu = next((runner.facts.gpu for runner in others if runner.facts.gpu is not None), None)
    if gpu is None:
        return "cpu"
    cuda = require("torch", purpose="running a checkpoint").cuda
    return f"cuda:{gpu}" if cuda.is_available() and gpu < cuda.device_count() else "cpu"


def same_work(arm: Arm, others: Sequence[Arm]) -> Arm | None:
    """The PyTorch arm that does as many MACs as an engine, on the same device and from numpy to numpy; or None."""
    if arm.mode is None or not arm.mode.transfers or arm.macs is None:
        return None
    return next(
        (
            other
            for other in others
            if other.checkpoint is not None
            and other.macs == arm.macs
            and other.runner.facts.device == arm.runner.facts.device
        ),
        None,
    )


def unlike(arms: Sequence[Arm]) -> list[str]:
    """Sentences about what a table compares that is not alike: devices, and precisions of engines and checkpoints."""
    found = []
    devices: dict[str, list[str]] = {}
    for arm in arms:
        devices.setdefault(arm.runner.facts.device, []).append(arm.runner.name)
    if len(devices) > 1:
        places = "; ".join(f"{', '.join(dict.fromkeys(names))} on {device}" for device, names in devices.items())
        found.append(f"the arms run on different devices ({places}): their times do not compare backends")
    engines = [one for one in arms if one.mode is not None and one.precision != "fp32"]
    checkpoints = [one for one in arms if one.checkpoint is not None]
    pairs = {
        (one.runner.name, one.precision, other.path.name, other.precision) for one in engines for other in checkpoints
    }
    found += [
        f"{engine} computes in {ours}, {checkpoint} in {theirs}: part of the difference is precision"
        for engine, ours, checkpoint, theirs in sorted(pairs)
        if ours != theirs
    ]
    return found
