"""Every option of every command, once: what is typed, its help, and how the text becomes what a verb takes.

An option is found by its name; where one command means something of its own by it, by `command.name`. Names and
defaults are those of the verbs (`tmdeploy.api`); `command.py` puts the two together.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import typer

from tmdeploy.errors import UsageError

MOST_IMAGES = 1 << 20  # at a time: more than any machine has memory for


class Option(NamedTuple):
    """What Typer reads, and what becomes of it."""

    kind: Any
    info: Any
    read: Callable[[Any], Any] | None = None


def option(text: str, kind: Any = str, *flags: str, read: Callable[[Any], Any] | None = None, **more: Any) -> Option:
    """An option; without flags it is named as the parameter."""
    return Option(kind, typer.Option(*flags, help=text, **more), read)


def argument(text: str, kind: Any = Path, metavar: str | None = None) -> Option:
    """An argument."""
    return Option(kind, typer.Argument(help=text, show_default=False, metavar=metavar))


def switch(text: str, flags: str) -> Option:
    """On or off."""
    return Option(bool, typer.Option(flags, help=text))


def batch_sizes(text: str) -> tuple[int, ...]:
    """`1,8` to (1, 8).

    Raises:
        UsageError: Not positive integers.
    """
    try:
        sizes = tuple(int(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--batch {text}: not whole numbers", remedy="Give them as 1,8") from None
    if min(sizes) < 1:
        raise UsageError(f"--batch {text}: a batch has at least one image")
    if max(sizes) > MOST_IMAGES:
        raise UsageError(f"--batch {text}: no machine holds that many images at a time")
    return sizes


def percentiles(text: str) -> tuple[float, ...]:
    """`50,90,99` to numbers; bench checks their range.

    Raises:
        UsageError: Not numbers.
    """
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError:
        raise UsageError(f"--percentile {text}: not numbers", remedy="Give them as 50,90,99") from None


def seconds(name: str) -> Callable[[str], float]:
    """A reader of `200ms`, `3s` or plain seconds, which raises UsageError of anything else."""

    def read(text: str) -> float:
        number, factor = (text[:-2], 1e-3) if text.endswith("ms") else (text.removesuffix("s"), 1.0)
        try:
            value = float(number) * factor
        except ValueError:
            value = -1.0
        if not 0.0 <= value < float("inf"):
            raise UsageError(f"{name} {text}: not a duration", remedy="Give it as 200ms or 3s")
        return value

    return read


def backend_names(text: str) -> tuple[str, ...]:
    """`onnxruntime,openvino:bf16` to the two.

    Raises:
        UsageError: A name twice. Whether there is such a backend is found out when it is opened.
    """
    names = tuple(part.strip() for part in text.split(","))
    if len(set(names)) < len(names):
        raise UsageError(f"--backend {text}: a backend twice")
    return names


def pairs(texts: list[str]) -> dict[str, str]:
    """`weight=size` to a method's options.

    Raises:
        UsageError: Of another form.
    """
    options = {}
    for pair in texts:
        key, equals, value = pair.partition("=")
        if not equals or not key:
            raise UsageError(f"--method-option {pair}: not of the form KEY=VALUE")
        options[key] = value
    return options


def _limit_time(limit: float | None) -> None:
    from tmdeploy.system.boundary import set_time_limit

    if limit is not None:
        set_time_limit(limit)


def _refuse_native(wanted: bool) -> None:
    from tmdeploy.native.library import refuse_native

    if not wanted:
        refuse_native()


def _trust_engines(trusted: bool) -> None:
    from tmdeploy.tensorrt.run.trust import trust_engines

    if trusted:
        trust_engines()


# Options that set something for the whole process, and no verb takes: default, and what sets it.
PROCESS: dict[str, tuple[Any, Callable[[Any], None]]] = {
    "timeout": (None, _limit_time),
    "native": (True, _refuse_native),
    "trust_engine": (False, _trust_engines),
}

_TEXTS = list[str]
_JSON = typer.Option("--json", metavar="FILE", help="Write the result as JSON; - is JSON alone on stdout.")
JsonOption = Annotated[str | None, _JSON]
_IMAGES = "a file, folder or glob. Repeatable."
_R = "Tokens to merge per block: 13, 26:0 (linear), or 8,8,4 (then 0)."
_KEEP = "Patch tokens to keep per step: rates (0.7, or 0.9,0.8,0.7; 1.0 is all) or counts (138,97,68; 1 is one)."
_SCHEDULE = "The same as --r or --keep, whichever the model takes."
_ARMS = " Repeatable: one run each."
_BACKENDS = "onnxruntime (default), onnxruntime-cuda, onnxruntime-tensorrt, openvino, openvino:bf16, or one installed"
_SIGNS = "op types, node patterns; +A,-B changes that."


def _amounts(text: str, kind: Any = str) -> Option:
    return option(text, kind, metavar="AMOUNTS")


OPTIONS: dict[str, Option] = {
    # What commands work on
    "model": argument("An .onnx, a checkpoint, or an engine."),
    "export.model": argument("Checkpoint: .pt, .safetensors, .ckpt, ...", Path, "CHECKPOINT"),
    "quantize.model": argument("An fp32 .onnx of tmdeploy export."),
    "build.model": argument("An .onnx, or a checkpoint, which is exported first."),
    "refit.engine": argument("An engine built with --strip-weights or --refittable."),
    "refit.model": argument("The .onnx with the weights."),
    "bench.model": argument("Models: .onnx, checkpoints and engines.", list[Path]),
    "visualize.model": argument("An .onnx exported by tmdeploy, or a checkpoint."),
    "reference": argument("What is right: a checkpoint or an .onnx."),
    "candidate": argument("What is judged: an .onnx, a checkpoint or an engine."),
    "image": argument("Images, folders or globs.", _TEXTS),
    "bench.engine": option("Engines to time beside them: .plan. Repeatable.", list[Path], "--engine"),
    # What they write
    "export.output": option("File to write; default: CHECKPOINT with suffix .onnx.", Path, "--output", "-o"),
    "quantize.output": option("File to write; default: MODEL.int8.onnx or MODEL.fp8.onnx.", Path, "--output", "-o"),
    "build.output": option("Engine to write; default: MODEL with suffix .plan.", Path, "--output", "-o"),
    "refit.output": option("Engine to write; default: ENGINE with suffix .full.plan.", Path, "--output", "-o"),
    "visualize.output": option("A folder, or a .png for a single image.", Path, "--output", "-o"),
    "infer.csv": option("Write the result as CSV.", Path),
    "json": Option(str, _JSON),
    # Images
    "validate.data": option(f"Images: {_IMAGES} Default: random images.", _TEXTS),
    "bench.data": option(f"Images to time on: {_IMAGES} Default: seeded random ones.", _TEXTS),
    "quantize.data": option(f"Images to calibrate on: {_IMAGES}", _TEXTS),
    "verify_data": option("Images or folders to compare on, besides random ones.", _TEXTS),
    "random": option("How many random images without --data.", int, min=1, max=MOST_IMAGES),
    "limit": option("At most this many images of --data.", int, min=1),
    "batch": option("Images at a time.", int, min=1, max=MOST_IMAGES),
    "validate.batch": option("Batch sizes to compare at.", str, read=batch_sizes),
    "bench.batch": option(
        "Batch sizes, one table each. Default: 1,8, as far as every model takes them.",
        str,
        metavar="SIZES",
        read=batch_sizes,
    ),
    # How many tokens go
    "method": option("Reduction method (tmdeploy methods); default: the checkpoint's."),
    "r": _amounts(_R),
    "keep": _amounts(_KEEP),
    "schedule": _amounts(_SCHEDULE),
    **{f"{command}.r": _amounts(_R + _ARMS, _TEXTS) for command in ("validate", "bench")},
    **{f"{command}.keep": _amounts(_KEEP + _ARMS, _TEXTS) for command in ("validate", "bench")},
    **{f"{command}.schedule": _amounts(_SCHEDULE + _ARMS, _TEXTS) for command in ("validate", "bench")},
    "layers": option("Blocks with a reduction step, counted from 0: 3,6,9."),
    "method_option": option(
        "Option of the method. Repeatable.", _TEXTS, "--method-option", "-O", metavar="KEY=VALUE", read=pairs
    ),
    # How a checkpoint is read
    "arch": option("Architecture by name; default: seen in the weights.", metavar="NAME"),
    "num_heads": option("Attention heads, if not width / 64.", int, min=1),
    "assume": option(
        "What weights do not show: heads, act, pool, mean, ... Repeatable.",
        _TEXTS,
        "--assume",
        "-A",
        metavar="KEY=VALUE",
    ),
    "image_size": option("Side of the input in pixels; default: the checkpoint's.", int, min=1),
    "ema": switch("Read the averaged (EMA) weights of the checkpoint.", "--ema"),
    "ignore_extra": switch("Leave out weights beside the ViT's, such as a decoder's.", "--ignore-extra"),
    "trust_checkpoint": switch("Allow unpickling, which runs whatever code the file holds.", "--trust-checkpoint"),
    # How a model is run
    "backend": option(f"Runs an .onnx: {_BACKENDS}.", metavar="NAME"),
    "validate.backend": option(f"Runs the candidate, an .onnx: {_BACKENDS}.", metavar="NAME"),
    "bench.backend": option(
        f"Run an .onnx, one arm each, separated by commas: {_BACKENDS}.", metavar="NAMES", read=backend_names
    ),
    "threads": option("Threads of the backend; default: its own choice.", int, min=1),
    "device": option(
        "Of checkpoints: cpu, cuda, cuda:N. auto is the GPU if another arm runs on it and torch sees it.",
        metavar="DEVICE",
    ),
    "timeout": option(
        "Give up (exit code 124) when loading a file, or one run of it, takes longer; default: never.",
        float,
        min=0.001,
        metavar="SECONDS",
    ),
    "native": switch(
        "Run reduction steps by the native library where there is one (tmdeploy plugins list).",
        "--native/--no-native",
    ),
    "trust_engine": switch("Allow code in an engine, or in a library that its sidecar names.", "--trust-engine"),
    # export
    "opset": option("Version of the standard operators, 18 to 23.", int),
    "export.precision": option("Weights and activations; planners and sizes stay fp32.", Literal["fp32", "fp16"]),
    "lowering": option("Custom nodes with function bodies, or standard ops only.", Literal["custom", "portable"]),
    "runtime_r": switch("Make the schedule (r or keep) an optional input.", "--runtime-r/--static-r"),
    "dynamic_batch": switch("Any batch size, or 1.", "--dynamic-batch/--static-batch"),
    "with_preprocessing": switch(
        "Take uint8 [batch, H, W, 3] pixels and normalise in the graph.", "--with-preprocessing"
    ),
    "extra_output": option("Also put out: plan, size or features. Repeatable.", _TEXTS),
    "passes": option(
        "Graph pass of an installed package to run before the comparison. Repeatable.", _TEXTS, "--pass", metavar="NAME"
    ),
    "deterministic": switch("Accumulate similarities in float64, or float32.", "--deterministic/--fast-planner"),
    "verify": switch("Compare the file with PyTorch.", "--verify/--no-verify"),
    "against": option(
        "Also prove it against your own model, unmerged: pkg.mod:build (found on PYTHONPATH or, since you name it, the "
        "current directory), timm:NAME, transformers:FOLDER, or outputs.npz saved from training.",
        metavar="MODEL",
    ),
    # quantize
    "int8": switch("8-bit integers, symmetric.", "--int8"),
    "fp8": switch("8-bit floats, E4M3FN: for GPUs from sm_89 on.", "--fp8"),
    "keep_float": option(
        f"What stays float: attention (default), metric-source, patch-embed, head, {_SIGNS}", metavar="LIST"
    ),
    "quantize.images": option("Calibration images.", int, min=1),
    "calibration": option("How the ranges of activations are found.", Literal["minmax", "percentile", "entropy"]),
    "quantize.percentile": option("Of magnitudes, for --calibration percentile.", float),
    "eval_data": option("Images to compare on. Default: those of --data not calibrated on.", _TEXTS),
    "eval_images": option("At most this many images to compare on.", int, min=1),
    "max_drop": option(
        "Largest drop of accuracy (of agreement without labels), 0.01 is a point; above it, exit code 1 and no file.",
        float,
    ),
    "seed": option("For the choice of images.", int),
    # build and refit
    "flavor": option("Which TensorRT; auto: the one that is installed.", Literal["auto", "tensorrt", "rtx"]),
    "build.precision": option(
        "Convert an fp32 file to this; default: as it is, without TF32.", Literal["fp32", "tf32", "fp16", "bf16"]
    ),
    "keep_fp32": option(f"What stays fp32: planner, size, softmax, layernorm, {_SIGNS}", metavar="LIST"),
    "min_batch": option("Smallest batch.  [default: 1]", int, min=1),
    "opt_batch": option("Batch to tune for.  [default: 8]", int, min=1),
    "max_batch": option("Largest batch.  [default: 32]", int, min=1),
    "build.profile": option(
        "Batch sizes of a profile, or one size. Repeatable, one profile each.", _TEXTS, metavar="MIN:OPT:MAX"
    ),
    "schedule_range": option("Make r or keep an input, with this range: 0:13:16.", metavar="MIN:OPT:MAX"),
    "target_sm": option("GPUs to build for, TensorRT-RTX only: sm_86,sm_89.", metavar="LIST"),
    "plugins": option(
        "Token ops in full TensorRT: aot, plugins whose kernels the engine carries; none, standard ops; auto: --plugin "
        "if given, else aot where it can be had.",
        Literal["auto", "aot", "none"],
    ),
    "plugin": option("Library of tmdeploy's C++ plugins to build with.", Path),
    "embed_plugin": switch("Carry that library in the engine.", "--embed-plugin"),
    "workspace": option("Memory for scratch space.", int, min=1, metavar="MIB"),
    "builder_optimization_level": option("How long to search for fast kernels, 0 to 5.", int, min=0, max=5),
    "version_compatible": switch("Run on later versions too (full TensorRT).", "--version-compatible"),
    "hardware_compatible": option("Run on other GPUs too (full TensorRT).", Literal["none", "ampere+", "same-cc"]),
    "strip_weights": switch("Leave out weights; tmdeploy refit puts them in before use.", "--strip-weights"),
    "refittable": switch("Let tmdeploy refit put in other weights than these.", "--refittable"),
    "weight_streaming": switch("Let weights stay on the host at run time.", "--weight-streaming"),
    "profiling_verbosity": option(
        "What the engine tells about its layers.", Literal["none", "layer-names-only", "detailed"]
    ),
    "timing_cache": option("Measured kernel times (full TensorRT). Default: in the user's cache folder.", Path),
    "other_weights": switch(
        "The .onnx is not the engine's source, but has its graph (--refittable).", "--other-weights"
    ),
    # validate
    "atol": option("Logits error where plans agree (fp32: 1e-4).", float),
    "op_rtol": option("Error of an op on the same inputs (fp32: 1e-5).", float),
    "tie_gap": option("Largest gap of a near-tie (fp32: 1e-5).", float),
    "max_ties": option("Largest share of near-ties (fp32: 0.05; fp16: 0.5; bf16, int8, fp8: 1).", float),
    "min_top1_agreement": option("Where plans agree (0.995; of a quantised file 0.98).", float),
    "min_p": option("McNemar p-value below which an accuracy drop fails.", float),
    # bench
    "warm_up": option("At least this long, then until times agree: 200ms, 1s.", read=seconds("--warm-up")),
    "duration": option("Measured time of each arm, at least.", read=seconds("--duration")),
    "iterations": option("Measured calls of each arm, at least.", int, min=1),
    "rounds": option("Interleaved rounds.", int, min=3),
    "percentile": option("Percentiles to report.", read=percentiles),
    "twin": switch("Also time each model without its reduction.", "--twin/--no-twin"),
    "free_merge": switch("Also time each exported file with a slice instead of each reduction.", "--free-merge"),
    "min_speedup": option(
        "Exit code 1 if a merged arm is not so many times as fast as its unmerged twin: 1.3.", float, metavar="FACTOR"
    ),
    "max_ratio": option(
        "The same the other way round: its time over the twin's, at most: 0.77.", float, metavar="RATIO"
    ),
    "memory": switch("Measure load time and peak memory.", "--memory/--no-memory"),
    "cuda_graph": option(
        "Engines: launch the work as one CUDA graph, or kernel by kernel. Default: both, an arm each.",
        bool,
        "--cuda-graph/--no-cuda-graph",
        show_default=False,
    ),
    "transfers": option(
        "Engines: copy images and logits in each call, or keep them on the GPU. Default: both, an arm each.",
        bool,
        "--transfers/--no-transfers",
        show_default=False,
    ),
    # infer, inspect, visualize
    "top_k": option("Classes an image.", int, min=1),
    "class_names": option("Class names: one a line, or JSON.", Path),
    "inspect.layers": switch("Of an engine: list every layer.", "--layers"),
    "profile": switch("Of an engine: time every layer, which needs its GPU.", "--profile"),
    "inspect.batch": option("With --profile: images a run; default: what it is tuned for.", int, min=1),
    "inspect.iterations": option("With --profile: runs to take the median of.  [default: 50]", int, min=1),
    "block": option("Show the state after this block. Repeatable. Default: the last step.", list[int]),
}
