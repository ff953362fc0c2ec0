"""What to build: the options of `tmdeploy build`, checked as far as they can be without a model."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from tmdeploy.errors import ArtifactError, UsageError
from tmdeploy.graph.precision import GROUPS, PRECISIONS
from tmdeploy.system.files import check_outputs
from tmdeploy.tensorrt.record.profiles import BatchRange
from tmdeploy.tensorrt.record.sidecar import Options, engine_files
from tmdeploy.tensorrt.sdk.flavor import Flavor

MAX_LEVEL = 5
PLUGINS = ("auto", "aot", "none")


@dataclass(frozen=True)
class BuildRequest:
    """One engine: arguments of `tmdeploy.build`, which says what they mean.

    Attributes:
        model: The `.onnx`.
        profiles: One optimisation profile each, from `profile`, or `min_batch`, `opt_batch` and `max_batch`.
        schedule: From `schedule_range`.
        options: What the sidecar repeats, by trtexec's words.
        command: What was typed, for the sidecar.
    """

    model: Path
    output: Path
    flavor: str = "auto"
    precision: str | None = None
    keep_fp32: tuple[str, ...] = GROUPS
    profiles: tuple[BatchRange, ...] = (BatchRange(min=1, opt=8, max=32),)
    schedule: str | None = None
    target_sm: tuple[str, ...] = ()
    plugins: str = "auto"
    plugin: Path | None = None
    embed_plugin: bool = False
    timing_cache: Path | None = None
    options: Options = field(default_factory=Options)
    command: str = ""


def check_request(request: BuildRequest) -> None:
    """Refuse what cannot be meant, before any work.

    Raises:
        UsageError: An option, or two together, that make no sense.
        ArtifactError: The output cannot be written, or there is no such plugin library.
    """
    options = request.options
    if request.output.suffix not in {".plan", ".engine"}:
        raise UsageError(f"{request.output}: an engine ends in .plan or .engine", remedy="Name it so with -o")
    if request.precision is not None and request.precision not in PRECISIONS:
        raise UsageError(f"--precision {request.precision}: choose from {', '.join(PRECISIONS)}")
    if not request.profiles:
        raise UsageError("an engine has at least one profile")
    level = options.builder_optimization_level
    if level is not None and not 0 <= level <= MAX_LEVEL:
        raise UsageError(f"--builder-optimization-level {level}: levels are 0 to {MAX_LEVEL}")
    if options.workspace_mib is not None and options.workspace_mib < 1:
        raise UsageError(f"--workspace {options.workspace_mib}: at least 1 MiB")
    if options.strip_weights and options.weight_streaming:
        raise UsageError("--strip-weights and --weight-streaming exclude each other: a stripped engine has no weights")
    if options.version_compatible and (options.strip_weights or options.refittable):
        which = "--strip-weights" if options.strip_weights else "--refittable"
        raise UsageError(
            f"--version-compatible and {which} exclude each other: the lean runtime that such an engine runs on cannot "
            "refit it",
            remedy="Leave out one of them",
        )
    if request.plugins not in PLUGINS:
        raise UsageError(f"--plugins {request.plugins}: choose from {', '.join(PLUGINS)}")
    if request.plugin is not None and request.plugins != "auto":
        raise UsageError(f"--plugins {request.plugins} and --plugin exclude each other", remedy="Give one of them")
    if request.embed_plugin and request.plugin is None:
        raise UsageError("--embed-plugin: there is no plugin to embed", remedy="Name it with --plugin")
    if request.plugin is not None and not request.plugin.is_file():
        raise ArtifactError("no such plugin library", path=request.plugin, remedy="Check the path")
    read = [request.model, *([request.plugin] if request.plugin is not None else [])]
    check_outputs({**engine_files(request.output), "--timing-cache": request.timing_cache}, read)


def check_flavor(request: BuildRequest, flavor: Flavor) -> list[str]:
    """Refuse or explain options that the flavor does not have.

    Returns:
        Sentences about options that have no effect.

    Raises:
        UsageError: An option whose absence would change what the engine is.
    """
    notes: list[str] = []
    if flavor is Flavor.TENSORRT:
        if request.options.version_compatible and request.plugins == "aot":
            notes.append(
                "--version-compatible with ahead-of-time plugins: NVIDIA does not say that they run on later versions"
            )
        if request.options.version_compatible and request.plugin is not None and not request.embed_plugin:
            notes.append(
                f"on later versions, too, the engine needs {request.plugin.name} beside it; --embed-plugin carries it"
            )
        if request.target_sm:
            raise UsageError(
                "--target-sm: full TensorRT builds for the GPU it runs on",
                remedy="Use --flavor rtx, or --hardware-compatible ampere+",
            )
        return notes
    if request.options.hardware_compatible != "none":
        raise UsageError(
            "--hardware-compatible: TensorRT-RTX does not have it", remedy="Name the GPUs with --target-sm instead"
        )
    if request.options.version_compatible:
        raise UsageError(
            "--version-compatible: TensorRT-RTX engines run on the version that built them",
            remedy="Use --flavor tensorrt",
        )
    if request.plugins == "aot":
        raise UsageError("--plugins aot: TensorRT-RTX has no plugins", remedy="Use --flavor tensorrt, or leave it out")
    if request.timing_cache is not None:
        notes.append("--timing-cache has no effect: TensorRT-RTX times nothing while it builds")
    return notes
