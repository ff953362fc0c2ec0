"""Whether an engine will run here: every mismatch is one sentence, before TensorRT fails in its own words."""

from __future__ import annotations

import platform
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path

from tmdeploy.errors import ArtifactError, EnvironmentMissing
from tmdeploy.system.files import sha256
from tmdeploy.tensorrt.cuda.gpu import Gpu, find_gpu
from tmdeploy.tensorrt.record.header import Header, read_header
from tmdeploy.tensorrt.record.sidecar import EngineRecord, build_again, read_sidecar, sidecar_path
from tmdeploy.tensorrt.run.trust import check_host_code, find_plugin
from tmdeploy.tensorrt.sdk.flavor import Flavor, Toolkit, open_toolkit, version_numbers

_AMPERE = (8, 0)


@dataclass(frozen=True)
class Fit:
    """An engine that will run here.

    Attributes:
        record: Its sidecar.
        toolkit: The TensorRT that runs it.
        gpu: The device it runs on.
        plugin: Library to load first; None if none is needed or the engine embeds it.
    """

    record: EngineRecord
    toolkit: Toolkit
    gpu: Gpu
    plugin: Path | None


def host_platform() -> str:
    """Such as `linux-x86_64`."""
    return f"{sys.platform}-{platform.machine().lower()}"


def read_engine(path: Path) -> EngineRecord:
    """The sidecar of an engine, checked against the engine's header; needs neither TensorRT nor a GPU.

    Raises:
        ArtifactError: No engine, a truncated one, one without its sidecar, or with another engine's.
    """
    header = read_header(path)
    record = read_sidecar(path)
    length, sidecar = path.stat().st_size, sidecar_path(path).name
    if length < record.bytes:
        raise ArtifactError(
            f"is truncated: {length} bytes are here, {sidecar} says {record.bytes}",
            path=path,
            remedy=f"Copy it again, in binary mode, or build it again: {build_again(path, record)}",
        )
    if length != record.bytes or sha256(path) != record.sha256:
        raise ArtifactError(
            f"is not the engine that {sidecar} describes ({_difference(header, record, length)})",
            path=path,
            remedy=f"Copy both files together, or build again: {build_again(path, record)}",
        )
    return record


def check_fit(path: Path, *, stripped: bool = False) -> Fit:
    """Make sure that an engine will run on this machine.

    What can be checked without a GPU is checked first.

    Args:
        path: The engine.
        stripped: Accept an engine without weights, because it is about to be refitted.

    Raises:
        ArtifactError: The files are damaged, the engine has no weights, or carries code and is not trusted, or the
            plugin library is another one.
        EnvironmentMissing: Another system, another TensorRT, no plugin library, no GPU, or another one.
    """
    record = read_engine(path)
    if record.stripped and not stripped:
        raise ArtifactError(
            "was built with --strip-weights and has none",
            path=path,
            remedy=f"Give them to it: tmdeploy refit {shlex.quote(str(path))} {record.source}",
        )
    if record.platform != host_platform():
        raise EnvironmentMissing(
            f"{path}: was built for {record.platform}, this is {host_platform()}",
            remedy=f"Build it here: {build_again(path, record)}",
        )
    check_host_code(path, record)
    toolkit = open_toolkit(record.flavor.value, purpose=f"running {path}")
    check_version(path, record, toolkit)
    plugin = find_plugin(path, record)
    gpu = find_gpu(f"running {path}")
    check_gpu(path, record, gpu)
    return Fit(record, toolkit, gpu, plugin)


def check_version(path: Path, record: EngineRecord, toolkit: Toolkit) -> None:
    """Refuse another version than the builder's; version-compatible engines run on later versions too.

    Raises:
        EnvironmentMissing: Another version is installed.
    """
    built, here = (version_numbers(version)[:3] for version in (record.tensorrt_version, toolkit.version))
    if built == here or (record.options.version_compatible and here > built):
        return
    wanted = ".".join(record.tensorrt_version.split(".")[:3])
    raise EnvironmentMissing(
        f"{path}: was built by {record.flavor.label} {record.tensorrt_version}, {toolkit.version} is installed",
        remedy=f"Install {record.flavor.distribution}=={wanted}.*, or build again: {build_again(path, record)}",
    )


def check_gpu(path: Path, record: EngineRecord, gpu: Gpu) -> None:
    """Refuse another kind of GPU, unless the engine was built for it.

    Raises:
        EnvironmentMissing: The GPU of this machine is not among them.
    """
    level = record.options.hardware_compatible
    if record.flavor is Flavor.RTX:
        fits = gpu.sm in record.target_sm if record.target_sm else gpu.compute_capability >= _AMPERE
        wants = ", ".join(record.target_sm) or "sm_80 and later"
        remedy = f"Build for it: {build_again(path, record)} --target-sm {gpu.sm}"
    elif level == "ampere+":
        fits, wants = gpu.compute_capability >= _AMPERE, "sm_80 and later"
        remedy = f"Build it here: {build_again(path, record)}"
    else:
        fits, wants = gpu.sm == record.sm, f"{record.sm} ({record.gpu})"
        remedy = f"Build it here: {build_again(path, record)}, or there with --hardware-compatible ampere+"
    if not fits:
        raise EnvironmentMissing(f"{path}: was built for {wants}, this GPU is {gpu.sm} ({gpu.name})", remedy=remedy)


def _difference(header: Header, record: EngineRecord, length: int) -> str:
    if header.flavor is not record.flavor:
        return f"it is of {header.flavor.label}, not {record.flavor.label}"
    if header.version is not None and version_numbers(header.version) != version_numbers(record.tensorrt_version):
        return f"it is of version {header.version}, not {record.tensorrt_version}"
    if length != record.bytes:
        return f"it has {length} bytes, not {record.bytes}"
    return "its checksum is another"
